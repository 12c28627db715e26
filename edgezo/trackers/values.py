"""The numbers that trackers get, from the entries of a run's metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

STEP_VALUES: Mapping[str, str] = {
    "loss": "train/loss",
    "lr": "train/lr",
    "projected_grad": "train/projected_grad",
    "memory_bytes": "memory/resident_bytes",
    "peak_bytes": "memory/peak_bytes",
}
"""Field of a step's entry -> name in trackers."""

EVALUATION_VALUES = ("loss", "accuracy", "score")
"""Fields of an evaluation's entry; in trackers the name of the set comes before them."""


def tracked_values(entry: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """Number of steps taken, and finite numbers by name; none for an entry of another kind.

    Args:
        entry: as `metrics.jsonl` has it.
    """
    if entry.get("event") == "step":
        found = {name: entry.get(key) for key, name in STEP_VALUES.items()}
        seconds = entry.get("elapsed_s")
        if isinstance(seconds, (int, float)) and seconds > 0:
            found["train/rows_per_s"] = entry["rows"] / seconds
        return entry["step"] + 1, _finite(found)
    if entry.get("event") == "eval":
        split = entry["split"]
        return entry["step"], _finite({f"{split}/{k}": entry.get(k) for k in EVALUATION_VALUES})
    return 0, {}


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }
