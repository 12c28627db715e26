"""A report of runs as one HTML page, with everything inside."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

from edgezo._version import CREATED_BY
from edgezo.pictures.svg import escaped, tag
from edgezo.report.charts import loss_chart, memory_chart, rate_chart, score_chart, throughput_chart
from edgezo.report.comparison import HEADER, NUMBERS, comparison_row
from edgezo.report.page_parts import block, figure, table, text
from edgezo.report.page_style import page_css
from edgezo.report.row_texts import RunTexts
from edgezo.report.run_section import run_section
from edgezo.runs.run_record import RunRecord
from edgezo.runs.run_state import State
from edgezo.wording import model_name

_TONES: Mapping[State, str] = {"done": "good", "running": "", "interrupted": "warned",
                               "unfinished": "warned"}  # fmt: skip
"""Colours of states; those that are not here are failures."""


def html_page(runs: Sequence[RunRecord], texts: Sequence[RunTexts]) -> str:
    """The page.

    Args:
        runs: one or more.
        texts: of each run.
    """
    body = _single(runs[0], texts[0]) if len(runs) == 1 else _several(runs, texts)
    title = _title(runs[0]) if len(runs) == 1 else f"{len(runs)} runs compared"
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=CREATED_BY),
        tag("meta", http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'"),
        text("title", f"{title} · edgezo"),
        tag("style", "\n" + page_css()),
    ]  # fmt: skip
    foot = block("footer", text("div", f"Made by {CREATED_BY}."))
    inside = block("head", *head) + block("body", block("main", *body, foot))
    return f'<!doctype html>\n<html lang="en">{inside}</html>\n'


def _single(run: RunRecord, texts: RunTexts) -> list[str]:
    return [_header(run, "h1"), *run_section(run, texts)]


def _several(runs: Sequence[RunRecord], texts: Sequence[RunTexts]) -> list[str]:
    header = block(
        "header",
        text("div", "edgezo runs", "eyebrow"),
        text("h1", f"{len(runs)} runs compared"),
        text("p", ", ".join(run.name for run in runs), "lead"),
    )
    rows = [tuple(map(escaped, comparison_row(run))) for run in runs]
    charts = [figure(loss_chart(runs), wide=True), figure(memory_chart(runs))]
    charts += [figure(throughput_chart(runs)), figure(rate_chart(runs))]
    scores = score_chart(runs)
    if scores is not None:
        charts.insert(1, figure(scores))
    parts = [
        header,
        block("div", table(HEADER, rows, NUMBERS, "compare"), cls="panel"),
        text("h2", "Side by side"),
        block("div", *charts, cls="grid"),
    ]
    for run, own in zip(runs, texts, strict=True):
        parts.append(block("section", _header(run, "h2"), *run_section(run, own), cls="run"))
    return parts


def _header(run: RunRecord, level: str) -> str:
    tone = _TONES.get(run.state, "bad")
    state = text("span", run.state, f"badge {tone}".strip())
    title = block(level, escaped(_title(run)))
    return block(
        "header", block("div", escaped(f"edgezo run {run.name}"), state, cls="eyebrow"), title,
        text("p", _lead(run), "lead"),
    )  # fmt: skip


def _title(run: RunRecord) -> str:
    model = model_name(run.model)
    return f"{model} on {run.data}" if run.data != "?" else model


def _lead(run: RunRecord) -> str:
    parts = [f"method {run.method}"]
    rows = run.receipt.get("rows")
    if isinstance(rows, int):
        held = run.receipt.get("held_out")
        more = f" ({held:,} held out)" if isinstance(held, int) and held else ""
        parts.append(f"{rows:,} rows{more}")
    if run.written:
        when = datetime.datetime.fromtimestamp(run.written)
        parts.append(f"{when:%d %B %Y, %H:%M}".removeprefix("0"))
    return " · ".join(parts)
