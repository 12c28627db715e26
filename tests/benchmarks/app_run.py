"""A run as in an app, on invented rows: measured by the benchmarks of pausing and serving."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.config import TuneConfig

TEMPLATE, LABELS = '"{text}" is about the', (" light", " music")
KINDS = {
    "first-order": TuneConfig(first_order_lr=1e-4, steps=10**9, max_time_s=0, epochs=0),
    "losses": TuneConfig(
        method="zo-sgd", lr=1e-6, eps=1e-2, steps=10**9, max_time_s=0, batch_size=16, blocks="all",
        scope="all", lr_schedule="constant",
    ),
}  # fmt: skip
"""Steps of 16 rows: exact gradients with cached prefixes, and one pair over all blocks on whole
rows."""

_WORDS = ("dim", "turn", "play", "stop", "the", "a", "lamp", "song", "in", "on", "kitchen", "now")


def text(generator: random.Random) -> str:
    """Some words, about 30 tokens."""
    return " ".join(generator.choice(_WORDS) for _ in range(28))


@contextmanager
def opened(bundle: Path, kind: str, rows: int = 64) -> Iterator[Tuner]:
    """A tuner in a folder of its own."""
    generator = random.Random(0)
    data = [{"text": text(generator), "label": number % 2} for number in range(rows)]
    config = KINDS[kind]
    with (
        tempfile.TemporaryDirectory(prefix="edgezo-benchmark-") as folder,
        Tuner.open(bundle, data, config, folder, template=TEMPLATE, labels=LABELS) as tuner,
    ):
        yield tuner
