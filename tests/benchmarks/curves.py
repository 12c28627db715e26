"""Accuracy over a run: reading, interpolating, comparing."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Axis = Literal["seconds", "forwards"]

_WHOLE = 0.9
"""Share of the longest run's time that a run of the same length took at least."""


@dataclass(frozen=True, slots=True)
class Point:
    """An evaluation.

    Attributes:
        seconds: of tuning before it, evaluations not counted.
        forwards: rows of the model evaluated in tuning before it.
        accuracy: on the validation rows.
    """

    seconds: float
    forwards: float
    accuracy: float


def read_points(metrics: Path) -> list[Point]:
    """Evaluations on the validation rows in a run's metrics.jsonl, in order."""
    points, forwards = [], 0
    for entry in read_metrics(metrics):
        if entry["event"] == "step":
            forwards += entry["rows"]
        elif entry.get("split") == "valid" and entry["accuracy"] is not None:
            points.append(Point(entry["seconds"], forwards, entry["accuracy"]))
    return points


def read_metrics(metrics: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]


def accuracy_at(points: Sequence[Point], place: float, axis: Axis) -> float:
    """Accuracy at a place of a curve, interpolated between evaluations.

    After the end of a run its last accuracy holds.
    """
    for before, after in zip([points[0], *points], points, strict=False):
        end = getattr(after, axis)
        if end >= place:
            start = getattr(before, axis)
            share = (place - start) / (end - start) if end > start else 1.0
            return before.accuracy + share * (after.accuracy - before.accuracy)
    return points[-1].accuracy


def first_reach(points: Sequence[Point], accuracy: float, axis: Axis = "seconds") -> float | None:
    """Place where a curve, interpolated between evaluations, first has an accuracy; or None."""
    for before, after in zip([points[0], *points], points, strict=False):
        if after.accuracy >= accuracy:
            start, end = getattr(before, axis), getattr(after, axis)
            if after.accuracy == before.accuracy:
                return float(end)
            share = (accuracy - before.accuracy) / (after.accuracy - before.accuracy)
            return float(start + max(0.0, share) * (end - start))
    return None


def mean_at(curves: Sequence[Sequence[Point]], place: float, axis: Axis) -> float:
    """Mean accuracy of several curves at a place."""
    return statistics.fmean(accuracy_at(points, place, axis) for points in curves)


def common_end(curves: Sequence[Sequence[Point]], axis: Axis) -> float:
    """The place that all curves reach, those left out that ended before their time was over."""
    longest = max(points[-1].seconds for points in curves)
    ends = [
        float(getattr(points[-1], axis))
        for points in curves
        if points[-1].seconds >= _WHOLE * longest
    ]
    return longest if axis == "seconds" else min(ends)
