"""Time from process start to a tuner that can step, in a process that imports nothing else."""

from __future__ import annotations

import tempfile
import time
from typing import Any

STAGES = ("interpreter", "edgezo_runtime", "onnxruntime", "tuner")


def start(bundle: str, started: float) -> dict[str, Any]:
    """Get ready to step.

    Args:
        bundle: its folder.
        started: time.time() when the process was started.
    Returns:
        Seconds and resident megabytes at the end of every stage.
    """
    stages = {"interpreter": _now(started)}
    from edgezo_runtime.app.tuner import Tuner
    from edgezo_runtime.config import TuneConfig

    stages["edgezo_runtime"] = _now(started)
    from edgezo_runtime.devices.library import import_onnxruntime

    import_onnxruntime()
    stages["onnxruntime"] = _now(started)
    from edgezo_runtime.data.random_rows import random_rows

    examples = random_rows(8, 8, 50, (5, 11))
    with (
        tempfile.TemporaryDirectory() as run,
        Tuner.open(bundle, examples, TuneConfig(batch_size=4), run) as tuner,
    ):
        stages["tuner"] = _now(started)
        tuner.step()
    return {"stages": stages}


def _now(started: float) -> tuple[float, float]:
    """Seconds since the start, and megabytes resident."""
    from edgezo_runtime.system.memory import rss_bytes

    return time.time() - started, rss_bytes() / 1e6
