"""Runs as apps open them: rows in memory, a template, label words."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.methods.catalogue import method_config

LABELS = [" w10", " w11"]
TEMPLATE = "{text} w4"
ROWS = [{"text": f"w{20 + 3 * n} w{40 + n}", "label": n % 2} for n in range(8)]
CONFIG = method_config("zo-sgd", lr=0.01, eps=0.01, steps=6, max_time_s=0, batch_size=4)


def opened(bundle: Bundle, folder: Path, config: TuneConfig = CONFIG, **options: Any) -> Tuner:
    """A tuner of rows in memory."""
    settings = {"template": TEMPLATE, "labels": LABELS, **options}
    return Tuner.open(bundle, ROWS, config, folder, **settings)


def until(found: Callable[[], object], seconds: float = 30) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.001)
