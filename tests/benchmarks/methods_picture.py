"""Accuracy of methods against seconds and against forwards, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.benchmarks.curves import Axis, Point, common_end, mean_at
from tests.benchmarks.result_file import points_of

ALWAYS = {"auto": "#c1272d", "zo-sgd": "#111111"}
"""Methods that are always in colour: the product's own and the field's baseline."""

OTHERS = ("#0072b2", "#e69f00", "#009e73", "#9467bd", "#56b4e9")
"""Colours of the best others, told apart by people who do not tell red from green."""

GREY = "#c8c8c8"
SAMPLES = 60


def colours(order: Sequence[str]) -> dict[str, str]:
    """Colour of each method that stands out.

    Args:
        order: methods, best first.
    """
    best = [method for method in order if method not in ALWAYS][: len(OTHERS)]
    return {**{name: ALWAYS[name] for name in ALWAYS if name in order}, **dict(zip(best, OTHERS))}  # noqa: B905


def mean_curve(curves: Sequence[Sequence[Point]], axis: Axis) -> list[tuple[float, float]]:
    """Places and mean accuracies, up to the end of the shortest seed."""
    if len(curves) == 1:
        return [(getattr(point, axis), point.accuracy) for point in curves[0]]
    end = common_end(curves, axis)
    places = [end * number / SAMPLES for number in range(SAMPLES + 1)]
    return [(place, mean_at(curves, place, axis)) for place in places]


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Places of labels, as near as possible to their curves, at least a gap apart."""
    order = sorted(range(len(values)), key=lambda number: values[number])
    placed = list(values)
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    excess = sum(placed) / len(placed) - sum(values) / len(values) if values else 0.0
    return [place - excess for place in placed]


def draw(done: Mapping[str, Sequence[Mapping[str, Any]]], task: str, picture: Path) -> None:
    """Draw one task.

    Args:
        done: runs of each method, best method first.
        task: for the title.
        picture: file to write.
    """
    import matplotlib.figure  # type: ignore[import-not-found, unused-ignore]

    figure = matplotlib.figure.Figure(figsize=(13, 5.5), layout="constrained")
    bright = colours(list(done))
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (name, title) in zip(
        axes,
        (("seconds", "seconds of tuning"), ("forwards", "forwards (rows evaluated)")),
        strict=True,
    ):
        lines = {
            method: mean_curve([points_of(run) for run in runs], name)  # type: ignore[arg-type]
            for method, runs in done.items()
        }
        _draw_lines(axis, lines, bright)
        if name == "forwards":
            axis.set_xscale("symlog", linthresh=1000)
            axis.set_xlim(left=0)
        axis.set_xlabel(title)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#eeeeee")
    axes[0].set_ylabel("accuracy on validation rows")
    seeds = max(len(runs) for runs in done.values())
    grey = len(done) - len(bright)
    figure.suptitle(
        f"{task}, {seeds} seed{'s' if seeds > 1 else ''}"
        + (f"; grey: {grey} other methods" if grey else "")
    )
    figure.savefig(picture, dpi=130)


def _draw_lines(
    axis: Any, lines: Mapping[str, list[tuple[float, float]]], bright: Mapping[str, str]
) -> None:
    for method, points in sorted(lines.items(), key=lambda item: item[0] in bright):
        width = 2.6 if method == "auto" else 1.6 if method in bright else 1.0
        axis.plot(*zip(*points, strict=True), color=bright.get(method, GREY), linewidth=width)
    low, high = axis.get_ylim()
    ends = {method: lines[method][-1] for method in bright}
    places = spread([accuracy for _, accuracy in ends.values()], 0.035 * (high - low))
    for (method, (x, y)), place in zip(ends.items(), places, strict=True):
        axis.annotate(
            method,
            (x, y),
            xytext=(1.02, (place - low) / (high - low)),
            textcoords="axes fraction",
            color=bright[method],
            va="center",
            fontsize=9,
            fontweight="bold" if method == "auto" else "normal",
            arrowprops={"arrowstyle": "-", "color": bright[method], "linewidth": 0.4},
        )
