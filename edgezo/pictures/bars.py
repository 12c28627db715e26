"""Horizontal bars: parts of a whole, and a value against a limit."""

from __future__ import annotations

from collections.abc import Sequence

from edgezo.pictures.svg import escaped, picture, tag
from edgezo.pictures.theme import PARTS


def part_class(name: str, number: int) -> str:
    """The colour of a part; parts without one of their own take turns."""
    return f"f-{name}" if name in PARTS else f"f-s{number % 6}"


def stacked_bar(title: str, parts: Sequence[tuple[str, float, str]], width: float) -> str:
    """Parts side by side, as wide as they are large.

    Args:
        title: in words.
        parts: names, sizes above zero, and texts that show where a pointer rests.
        width: of the picture.
    """
    return picture(width, 30, title, bar_drawing(parts, width), cls="chart bar")


def bar_drawing(parts: Sequence[tuple[str, float, str]], width: float, height: float = 30) -> str:
    """The elements of a stacked bar."""
    total = sum(size for _, size, _ in parts)
    drawn, start = [], 0.0
    for number, (name, size, text) in enumerate(parts):
        length = width * size / total if total else 0.0
        told = tag("title", escaped(text))
        drawn.append(
            tag(
                "rect",
                told,
                x=start,
                y=0.0,
                width=max(0.0, length - (1.5 if length > 4 else 0)),
                height=float(height),
                cls=part_class(name, number),
            )
        )
        start += length
    return "".join(drawn)


def gauge(title: str, share: float, mark: float | None, width: float) -> str:
    """A value against a limit.

    Args:
        title: in words.
        share: of the limit; beyond 1 the bar is full.
        mark: a share that gets a tick, such as what was predicted; None for no tick.
        width: of the picture.
    """
    drawn = [
        tag("rect", x=0.0, y=1.0, width=float(width), height=8.0, rx=4.0, cls="track"),
        tag("rect", x=0.0, y=1.0, width=width * min(1.0, max(0.0, share)), height=8.0, rx=4.0,
            cls="f-s0" if share <= 1 else "f-s1"),
    ]  # fmt: skip
    if mark is not None:
        place = width * min(1.0, max(0.0, mark))
        drawn.append(tag("rect", x=place - 1, y=0.0, width=2.0, height=10.0, cls="t"))
    return picture(width, 10, title, *drawn, cls="chart gauge")
