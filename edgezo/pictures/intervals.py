"""Shares of rows with their Wilson intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgezo.pictures.scales import Scale, nice_ticks
from edgezo.pictures.svg import escaped, picture, tag, words
from edgezo.pictures.theme import SERIES

Z95 = 1.959963984540054
"""Standard normal quantile of a two-sided interval of 95 %."""


def wilson(share: float, rows: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of a share.

    Its ends are the shares p with |share - p| = z sqrt(p (1 - p) / rows).

    Args:
        share: of `rows`, 0 to 1.
        rows: number of rows; 0 gives (0, 1).
        z: quantile; the default is that of 95 %.
    References:
        Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22.
    """
    if rows <= 0:
        return 0.0, 1.0
    square = z * z / rows
    middle = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / rows + square / (4 * rows)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True, slots=True)
class ShareOfRows:
    """A share of rows, by name."""

    name: str
    share: float
    rows: int
    series: int = 0


_ROW, _LEFT, _RIGHT = 56.0, 64.0, 18.0


def interval_chart(title: str, shares: Sequence[ShareOfRows], width: float) -> str:
    """Shares as dots with their intervals, one below the other."""
    height = _ROW * len(shares) + 36
    return picture(width, height, title, interval_drawing(shares, width))


def interval_drawing(shares: Sequence[ShareOfRows], width: float) -> str:
    """The elements of the chart; its height is 56 for each share, and 36."""
    intervals = [wilson(own.share, own.rows) for own in shares]
    lows, highs = zip(*intervals, strict=True)
    ticks = [tick for tick in nice_ticks(min(lows), max(highs), 5) if -0.001 <= tick <= 1.001]
    low, high = min(*lows, *ticks), max(*highs, *ticks)
    x = Scale(low, high, _LEFT, width - _RIGHT)
    bottom = _ROW * len(shares) + 10
    drawn = []
    for tick in ticks:
        drawn.append(tag("line", x1=x(tick), x2=x(tick), y1=4.0, y2=bottom, cls="grid"))
        label = f"{100 * tick:.0f} %"
        drawn.append(words(x(tick), bottom + 16, label, "t m small", text_anchor="middle"))
    for number, (own, (start, end)) in enumerate(zip(shares, intervals, strict=True)):
        y, series = _ROW * number + 36.0, own.series % SERIES
        told = tag(
            "title",
            escaped(f"{100 * own.share:.1f} %, {100 * start:.1f} to {100 * end:.1f} % (95 %)"),
        )
        ends = {"x1": x(start), "x2": x(end), "y1": y, "y2": y}
        drawn += [
            words(0, y + 4, own.name, "t"),
            tag("line", told, cls=f"line k-s{series}", **ends),
            tag("circle", cx=x(own.share), cy=y, r=5.0, cls=f"f-s{series}"),
            words(x(own.share), y - 12, f"{100 * own.share:.1f} %", "t b small halo",
                  text_anchor="middle"),
        ]  # fmt: skip
    return "".join(drawn)
