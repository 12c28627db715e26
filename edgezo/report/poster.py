"""A report as one picture: the numbers at the head, and the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgezo.pictures.line_chart import LineChart
from edgezo.pictures.svg import picture, tag, words
from edgezo.pictures.theme import LIGHT, SERIES, fixed_rules
from edgezo.report.charts import (
    gradient_chart,
    loss_chart,
    memory_chart,
    rate_chart,
    score_chart,
    throughput_chart,
)
from edgezo.report.comparison import score_text
from edgezo.report.facts import cards
from edgezo.runs.run_record import RunRecord
from edgezo.wording import duration, model_name
from edgezo_runtime.system.sizes import format_size

WIDTH = 1200.0
_EDGE, _GAP, _PANEL, _CAPTION = 36.0, 16.0, 290.0, 44.0


def poster(runs: Sequence[RunRecord], theme: Mapping[str, str] = LIGHT) -> str:
    """The picture, as a file of its own.

    Args:
        runs: one or more.
        theme: its colours.
    """
    top, head = _single_head(runs[0]) if len(runs) == 1 else _several_head(runs)
    second = score_chart(runs) or gradient_chart(runs)
    charts = [loss_chart(runs), *([] if second is None else [second])]
    charts += [memory_chart(runs), throughput_chart(runs), rate_chart(runs)]
    spans = (3 if second is None else 2, *[1] * (len(charts) - 1))
    drawn, x, y = [], _EDGE, top
    column = (WIDTH - 2 * _EDGE - 2 * _GAP) / 3
    for chart, span in zip(charts, spans, strict=True):
        width = column * span + _GAP * (span - 1)
        if x + width > WIDTH - _EDGE + 1:
            x, y = _EDGE, y + _PANEL + _GAP
        drawn.append(_panel(chart, x, y, width))
        x += width + _GAP
    height = y + _PANEL + _EDGE
    style = tag("style", fixed_rules(theme))
    page = tag("rect", width=WIDTH, height=height, fill=theme["page"])
    title = ", ".join(run.name for run in runs)
    return picture(WIDTH, height, f"edgezo: {title}", style, page, head, *drawn) + "\n"


def _panel(chart: LineChart, x: float, y: float, width: float) -> str:
    inner = 16.0
    drawn = [
        tag("rect", width=width, height=_PANEL, rx=10.0, cls="back"),
        words(inner, 25, chart.title, "t b"),
    ]
    place = inner
    for line in chart.lines:
        if line.label:
            colour = f"f-s{line.series % SERIES}"
            drawn.append(tag("rect", x=place, y=34.0, width=9.0, height=9.0, rx=2.0, cls=colour))
            drawn.append(words(place + 14, 43, line.label, "t m small"))
            place += 30 + 6.6 * len(line.label)
    chart_drawn = chart.drawing(width - 2 * inner, _PANEL - _CAPTION - 16)
    drawn.append(tag("g", chart_drawn, transform=f"translate({inner:g} {_CAPTION + 6:g})"))
    return tag("g", *drawn, transform=f"translate({x:g} {y:g})")


def _single_head(run: RunRecord) -> tuple[float, str]:
    """Height and drawing of the head of one run."""
    model = model_name(run.model)
    title = model if run.data == "?" else f"{model} on {run.data}"
    told = f"edgezo run {run.name}: method {run.method}, {run.state}"
    drawn = [
        words(_EDGE, 52, _fitted(title, WIDTH - 2 * _EDGE, 14.0), "h"),
        words(_EDGE, 74, _fitted(told, WIDTH - 2 * _EDGE), "t m"),
    ]
    found = cards(run)
    width = (WIDTH - 2 * _EDGE - _GAP * (len(found) - 1)) / len(found)
    for number, card in enumerate(found):
        parts = [
            tag("rect", width=width, height=92.0, rx=10.0, cls="back"),
            words(16, 26, card.label, "t m small"),
            words(16, 54, _fitted(card.value, width - 28, 14.0), "h"),
            words(16, 77, _fitted(card.note, width - 28, 5.5), "t m small"),
        ]
        x = _EDGE + number * (width + _GAP)
        drawn.append(tag("g", *parts, transform=f"translate({x:g} 96)"))
    return 96 + 92 + _GAP, "".join(drawn)


def _several_head(runs: Sequence[RunRecord]) -> tuple[float, str]:
    """Height and drawing of the head of several runs: a line for each."""
    drawn = [words(_EDGE, 52, f"{len(runs)} runs compared", "h")]
    for number, run in enumerate(runs):
        y = 84.0 + 24 * number
        drawn.append(tag("circle", cx=_EDGE + 5, cy=y - 4, r=5.0, cls=f"f-s{number % SERIES}"))
        peak = "-" if run.peak_bytes is None else format_size(run.peak_bytes)
        told = (
            f"{model_name(run.model)} on {run.data}, {run.method}: {score_text(run.before)} to "
            f"{score_text(run.after)}, {duration(run.seconds)}, {peak}, {run.state}"
        )
        name, line = _fitted(run.name, 190), _fitted(told, WIDTH - 2 * _EDGE - 220)
        drawn += [words(_EDGE + 20, y, name, "t b"), words(_EDGE + 220, y, line, "t m")]
    return 84 + 24 * len(runs) + _GAP, "".join(drawn)


def _fitted(text: str, width: float, size: float = 6.9) -> str:
    """A text cut to a width; `size` is that of a character, about."""
    most = int(width / size)
    return text if len(text) <= most else text[: most - 3] + "..."
