"""A block of lines that shows how work goes: bars, a curve, numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

from edgezo.cli.terminal.code_page import can_write
from edgezo.pictures.sparkline import BARS, PLAIN_BARS, sparkline

_LONGEST_BAR, _SHORTEST_BAR = 40, 8
_WIDEST_CURVE = 60


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Characters of bars and curves."""

    full: str
    empty: str
    curve: str


BLOCKS = Glyphs("\u2588", "\u2591", BARS)
PLAIN = Glyphs("#", ".", PLAIN_BARS)


def glyphs_for(stream: TextIO) -> Glyphs:
    """The characters that a stream can write."""
    return BLOCKS if can_write(BLOCKS.full + BLOCKS.empty + BARS, stream) else PLAIN


@dataclass(frozen=True, slots=True)
class Gauge:
    """A value against a limit: its name, its share of the limit, and words after the bar."""

    name: str
    share: float
    text: str


@dataclass(frozen=True, slots=True)
class Board:
    """What a block shows.

    Attributes:
        title: what is done, in a few words.
        share: share of the work that is done; None if nobody knows.
        left: words after its bar.
        curve: numbers of the curve, the oldest first.
        curve_text: words before the curve.
        facts: short texts.
        gauges: values against limits.
    """

    title: str
    share: float | None = None
    left: str = ""
    curve: Sequence[float] = ()
    curve_text: str = ""
    facts: Sequence[str] = ()
    gauges: Sequence[Gauge] = field(default=())

    def lines(self, width: int, glyphs: Glyphs) -> list[str]:
        """The lines of the block.

        Args:
            width: most characters of a line.
            glyphs: of bars and curves.
        """
        longest = max(map(len, [self.title, *(own.name for own in self.gauges)]))
        size = longest if longest + 2 * _SHORTEST_BAR < width // 2 else 0  # bars begin alike
        found = [bar_line(self.title.ljust(size), self.share, self.left, width, glyphs)]
        if self.curve_text:
            room = min(_WIDEST_CURVE, width - len(self.curve_text) - 2)
            found.append(f"{self.curve_text}  {sparkline(self.curve, room, glyphs.curve)}")
        found += _wrapped(self.facts, width)
        found += [
            bar_line(own.name.ljust(size), own.share, own.text, width, glyphs)
            for own in self.gauges
        ]
        return [line[:width].rstrip() for line in found]


def bar_line(name: str, share: float | None, text: str, width: int, glyphs: Glyphs) -> str:
    """A name, a bar, and words; the bar shrinks first, and a very narrow line has none.

    Where not even the words fit, the share is left out, so that no number is cut.
    """
    percent = "" if share is None else f"{100 * min(1.0, max(0.0, share)):3.0f} %"
    words = [word for word in (percent, text) if word]
    if text and len(name) + sum(len(word) + 2 for word in words) > width:
        words = [text]
    room = width - len(name) - sum(len(word) + 2 for word in words) - 2
    parts = [name]
    if share is not None and room >= _SHORTEST_BAR:
        parts.append(bar(share, min(room, _LONGEST_BAR), glyphs))
    return "  ".join([*parts, *words])


def bar(share: float, size: int, glyphs: Glyphs) -> str:
    """A bar of some characters."""
    full = round(size * min(1.0, max(0.0, share)))
    return glyphs.full * full + glyphs.empty * (size - full)


def _wrapped(texts: Sequence[str], width: int) -> list[str]:
    """Texts beside each other, in as many lines as they need."""
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + 2 + len(text) <= width:
            lines[-1] += f"  {text}"
        else:
            lines.append(text)
    return lines
