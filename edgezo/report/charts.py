"""The curves of runs: losses, scores, rates, throughput and memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate

from edgezo.pictures.intervals import wilson
from edgezo.pictures.line_chart import Band, Line, LineChart, Mark
from edgezo.pictures.scales import Point, finite, plain_number, smoothed, time_ticks
from edgezo.runs.run_record import EvaluationLine, RunRecord, Steps
from edgezo.wording import duration, percent
from edgezo_runtime.system.sizes import format_size

_SPAN = 25
"""Steps over which losses are smoothed, of 1,000; at least three steps."""


def loss_chart(runs: Sequence[RunRecord]) -> LineChart:
    """Losses of steps and on the rows for validation, with the step that is kept."""
    lines: list[Line] = []
    marks: list[Mark] = []
    single = len(runs) == 1
    highest: list[float] = []
    for number, run in enumerate(runs):
        points = finite(run.steps.step, run.steps.loss)
        smooth = smoothed(points, _span(points))
        valid = [(float(own.step), own.loss) for own in run.valid]
        series = 1 if single else number
        if single:
            lines.append(Line(points, "", 0, "thin"))
            lines.append(Line(smooth, "loss of steps, smoothed", 0))
        else:
            lines.append(Line(smooth, "" if valid else run.name, number, "thin"))
        if valid:
            label = "loss on rows for validation" if single else run.name
            lines.append(Line(valid, label, series, "dots"))
        highest += [value for _, value in valid] + _usual([value for _, value in smooth])
        kept = run.after
        if kept is not None:
            text = f"kept: {plain_number(round(kept.loss, 4))}"
            point = (float(kept.step), kept.loss)
            marks.append(Mark(point, text if single else plain_number(round(kept.loss, 3)), series))
    return LineChart(
        "Loss",
        lines,
        marks=marks,
        events=_events(runs),
        top=max(highest, default=None),
    )


def score_chart(runs: Sequence[RunRecord]) -> LineChart | None:
    """Accuracy, or the score of answers, on the rows for validation; None where there is none."""
    lines: list[Line] = []
    marks: list[Mark] = []
    bands: list[Band] = []
    for number, run in enumerate(runs):
        found = [(own, value) for own in run.valid if (value := score_of(own)) is not None]
        if not found:
            continue
        points = [(float(own.step), value) for own, value in found]
        lines.append(Line(points, "" if len(runs) == 1 else run.name, number, "dots"))
        if len(runs) == 1 and all(own.score is None and own.rows for own, _ in found):
            bounds = [(float(own.step), *wilson(value, own.rows)) for own, value in found]
            bands.append(Band(bounds, number))
        kept = run.after
        if kept is not None and (value := score_of(kept)) is not None:
            marks.append(Mark((float(kept.step), value), percent(value), number))
    if not lines:
        return None
    title = f"{score_name(runs[0]).capitalize()} on rows for validation"
    return LineChart(title, lines, bands=bands, marks=marks, y_text=_percent)


def rate_chart(runs: Sequence[RunRecord]) -> LineChart:
    """Learning rates by step."""
    lines = [
        Line(finite(run.steps.step, run.steps.lr), _name(runs, run), number)
        for number, run in enumerate(runs)
    ]
    return LineChart("Learning rate", lines, from_zero=True)


def throughput_chart(runs: Sequence[RunRecord]) -> LineChart:
    """Rows per second by step."""
    return _noisy("Rows per second", runs, rows_per_s)


def gradient_chart(runs: Sequence[RunRecord]) -> LineChart | None:
    """Projected gradients by step; None where all are zero, because gradients were exact."""
    if not any(value for run in runs for value in run.steps.projected_grad):
        return None
    return _noisy(
        "Projected gradient",
        runs,
        lambda steps: finite(steps.step, steps.projected_grad),
    )


def _noisy(
    title: str, runs: Sequence[RunRecord], points_of: Callable[[Steps], list[Point]]
) -> LineChart:
    """Numbers of single steps, and the same smoothed; the scale leaves out the highest 2 %."""
    lines: list[Line] = []
    for number, run in enumerate(runs):
        points = points_of(run.steps)
        if len(runs) == 1:
            lines.append(Line(points, "", number, "thin"))
        lines.append(Line(smoothed(points, _span(points)), _name(runs, run), number))
    usual = [value for line in lines for value in _usual([y for _, y in line.points])]
    return LineChart(title, lines, from_zero=True, top=max(usual, default=None))


def memory_chart(runs: Sequence[RunRecord]) -> LineChart:
    """Resident memory of the process over the time of the steps, against the budget."""
    lines: list[Line] = []
    events: list[tuple[float, str]] = []
    for number, run in enumerate(runs):
        seconds = list(accumulate(map(_zero_for_nan, run.steps.elapsed_s)))
        peak = finite(seconds, run.steps.peak_bytes)
        after = finite(seconds, run.steps.memory_bytes)
        if len(runs) == 1:
            lines += [Line(after, "after each step", 0), Line(peak, "peak so far", 1, "dashed")]
        else:
            lines += [Line(after, "", number, "thin"), Line(peak, run.name, number)]
        for event in run.events:
            if event.kind == "pressure" and seconds:
                at = seconds[min(max(0, event.step - 1), len(seconds) - 1)]
                events.append((at, event.text))
    budgets = {run.budget_bytes for run in runs if run.budget_bytes}
    limits = [(float(size), f"budget {format_size(size)}") for size in sorted(budgets)]
    return LineChart(
        "Resident memory of the process",
        lines,
        x_label="time of steps",
        limits=limits if any(line.points for line in lines) else [],
        events=events,
        y_text=_size,
        x_text=lambda value: "0" if value == 0 else duration(value),
        x_ticks=time_ticks,
        from_zero=True,
    )


def rows_per_s(steps: Steps) -> list[Point]:
    """Rows of the model per second of each step."""
    rates = [
        rows / seconds if seconds > 0 else math.nan
        for rows, seconds in zip(steps.rows, steps.elapsed_s, strict=True)
    ]
    return finite(steps.step, rates)


def score_of(found: EvaluationLine) -> float | None:
    """What an evaluation is judged by besides its loss: score of answers, else accuracy."""
    return found.accuracy if found.score is None else found.score


def score_name(run: RunRecord) -> str:
    """The name of that score: the objective where answers are scored, else "accuracy"."""
    answers = any(own.score is not None for own in run.evaluations)
    name = str(run.receipt.get("objective") or run.settings.get("objective") or "score")
    return name.partition(" ")[0] if answers else "accuracy"


def _span(points: Sequence[Point]) -> float:
    """Steps over which a curve is smoothed."""
    return max(3.0, len(points) * _SPAN / 1000)


def _name(runs: Sequence[RunRecord], run: RunRecord) -> str:
    return "" if len(runs) == 1 else run.name


def _events(runs: Sequence[RunRecord]) -> list[tuple[float, str]]:
    """Rollbacks and plateaus."""
    found = [event for run in runs for event in run.events if event.kind == "divergence"]
    return [(float(event.step), event.text) for event in found]


def _usual(values: Sequence[float]) -> list[float]:
    """The 98th percentile: single outliers do not set the scale."""
    ordered = sorted(values)
    return [ordered[int(0.98 * (len(ordered) - 1))] * 1.05] if ordered else []


def _zero_for_nan(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _percent(value: float) -> str:
    return f"{100 * value:.4g} %"


def _size(value: float) -> str:
    return "0" if value <= 0 else format_size(round(value))
