"""Accuracy of methods against seconds and against forwards, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgezo.pictures.line_chart import Line, LineChart
from edgezo.pictures.svg import picture, tag, words
from edgezo.pictures.theme import LIGHT, SERIES, fixed_rules
from tests.benchmarks.curves import Axis, Point, common_end, mean_at
from tests.benchmarks.result_file import points_of

ALWAYS = ("auto", "feedback", "zo-sgd")
"""Methods that are always in colour: the product's own two and the field's baseline."""

WIDTH, HEIGHT, TOP = 560.0, 380.0, 56.0
SAMPLES = 60

AXES: tuple[tuple[Axis, str], ...] = (
    ("seconds", "seconds of tuning"),
    ("forwards", "forwards (rows evaluated)"),
)


def coloured(order: Sequence[str]) -> list[str]:
    """The methods that stand out, in the order of their colours.

    Args:
        order: methods, best first.
    """
    always = [name for name in ALWAYS if name in order]
    others = [name for name in order if name not in ALWAYS]
    return [*always, *others][:SERIES]


def mean_curve(curves: Sequence[Sequence[Point]], axis: Axis) -> list[tuple[float, float]]:
    """Places and mean accuracies, up to the end of the shortest seed."""
    if len(curves) == 1:
        return [(getattr(point, axis), point.accuracy) for point in curves[0]]
    end = common_end(curves, axis)
    places = [end * number / SAMPLES for number in range(SAMPLES + 1)]
    return [(place, mean_at(curves, place, axis)) for place in places]


def draw(done: Mapping[str, Sequence[Mapping[str, Any]]], task: str, file: Path) -> None:
    """Draw one task.

    Args:
        done: runs of each method, best method first.
        task: for the title.
        file: SVG to write.
    """
    bright = coloured(list(done))
    seeds = max(len(runs) for runs in done.values())
    title = f"{task}: accuracy on validation rows, {seeds} seed{'s' if seeds > 1 else ''}"
    parts = [tag("style", fixed_rules(LIGHT)), tag("rect", width="100%", height="100%", cls="back")]
    parts += [words(12, 20, title, "t b"), *_legend(bright)]
    for number, (axis, label) in enumerate(AXES):
        lines = [_line(name, runs, axis, bright) for name, runs in done.items()]
        lines.sort(key=lambda line: line.style != "thin")  # those in colour on top
        chart = LineChart(title, lines, label).drawing(WIDTH, HEIGHT)
        parts.append(tag("g", chart, transform=f"translate({number * WIDTH:g} {TOP:g})"))
    text = picture(2 * WIDTH, HEIGHT + TOP, title, *parts)
    file.write_text(text + "\n", encoding="utf-8")


def _line(name: str, runs: Sequence[Mapping[str, Any]], axis: Axis, bright: Sequence[str]) -> Line:
    points = mean_curve([points_of(run) for run in runs], axis)
    if name not in bright:
        return Line(points, name, style="thin")
    return Line(points, name, bright.index(name))


def _legend(bright: Sequence[str]) -> list[str]:
    parts, place = [], 12.0
    for series, name in enumerate(bright):
        ends = {"x1": place, "x2": place + 22, "y1": 39.0, "y2": 39.0}
        parts.append(tag("line", cls=f"line k-s{series}", **ends))
        parts.append(words(place + 28, 43, name))
        place += 60 + 7.2 * len(name)
    return parts
