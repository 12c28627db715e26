"""Parts of a page: figures, tables, lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgezo.pictures.bars import part_class, stacked_bar
from edgezo.pictures.line_chart import LineChart
from edgezo.pictures.svg import escaped, tag
from edgezo.pictures.theme import SERIES
from edgezo.wording import percent
from edgezo_runtime.system.sizes import format_size

SMALL = (360.0, 246.0)
LARGE = (742.0, 251.0)
"""Widths and heights of charts, in the units of their type: one fills a column, one two columns."""


def block(name: str, *children: str, cls: str | None = None) -> str:
    """An element that is not empty in HTML, whatever it holds."""
    return tag(name, *(children or ("",)), cls=cls)


def text(name: str, content: object, cls: str | None = None) -> str:
    """An element that holds a text."""
    return tag(name, escaped(content), cls=cls)


def figure(chart: LineChart, *, wide: bool = False, sub: str = "") -> str:
    """A chart with its title and its legend; a wide one has a second drawing for narrow pages."""
    svg = chart.svg(*SMALL)
    if wide:
        svg = block("div", chart.svg(*LARGE), cls="wider") + block("div", svg, cls="narrow")
    caption = text("h3", chart.title) + _legend(chart) + (text("div", sub, "sub") if sub else "")
    return block("figure", block("figcaption", caption), svg, cls="panel wide" if wide else "panel")


def _legend(chart: LineChart) -> str:
    named = [line for line in chart.lines if line.label]
    if not named:
        return ""
    return block("div", *(_entry(f"s{line.series % SERIES}", line.label) for line in named),
                 cls="legend")  # fmt: skip


def _entry(colour: str, label: str) -> str:
    return block("span", chip(colour), escaped(label))


def chip(colour: str) -> str:
    """A small square in a colour."""
    return block("span", cls=f"chip c-{colour}")


def named_rows(rows: Iterable[tuple[str, str]], *, mono: bool = False, loose: bool = False) -> str:
    """A table of names and values; loose names may take several lines."""
    cls = "mono" if mono else None
    lines = [block("tr", text("th", name), text("td", value, cls)) for name, value in rows]
    return block("table", *lines, cls="names loose" if loose else "names")


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int], cls: str = ""
) -> str:
    """A table; columns of numbers are aligned at the right. Cells are escaped already."""
    kinds = ["n" if index in numbers else None for index in range(len(header))]
    head = [text("th", name, kind) for name, kind in zip(header, kinds, strict=True)]
    lines = [block("tr", *head)]
    for row in rows:
        cells = zip(row, kinds, strict=True)
        lines.append(block("tr", *(block("td", cell, cls=kind) for cell, kind in cells)))
    return block("div", block("table", *lines, cls=cls or None), cls="scroll")


_LEDGER = {"part": "part", "size": "n", "share": "n", "what it is": "what"}
"""Columns of the ledger and their classes."""


def ledger_panel(parts: Sequence[tuple[str, int, str]]) -> str:
    """Where the bytes go: a bar, and its parts by name."""
    total = sum(size for _, size, _ in parts)
    shown = [(name, float(size), f"{name}: {format_size(size)}") for name, size, _ in parts]
    head = ("part", "size", "share", "what it is")
    lines = [block("tr", *(text("th", name, _LEDGER[name]) for name in head))]
    for number, (name, size, meaning) in enumerate(parts):
        colour = chip(part_class(name, number).removeprefix("f-"))
        cells = (name, format_size(size), percent(size / total), meaning)
        named = [
            text("td", own, _LEDGER[key]) for key, own in zip(head[1:], cells[1:], strict=True)
        ]
        lines.append(block("tr", block("td", colour, escaped(name), cls="part"), *named))
    bar = stacked_bar("Where the bytes go, by plan", shown, 400)
    wide = stacked_bar("Where the bytes go, by plan", shown, 1100)
    bars = block("div", wide, cls="wider") + block("div", bar, cls="narrow")
    body = text("h3", "Where the bytes go, by plan") + bars
    return block("div", body, block("table", *lines, cls="parts"), cls="panel below")


def folded(title: str, content: str) -> str:
    """Content that is shown on demand."""
    return block("details", text("summary", title), content)
