"""Curves of one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-=+*#"
"""For terminals whose code page lacks blocks."""


def sparkline(values: Sequence[float], width: int, bars: str = BARS) -> str:
    """A curve as text, a character for the mean of each part.

    Args:
        values: numbers; those that are not finite leave a space where they stand alone.
        width: most characters.
        bars: characters from the lowest number to the highest.
    """
    means = [_mean(part) for part in _parts(values, width)]
    known = [value for value in means if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    room = (high - low) or 1.0
    return "".join(
        bars[min(len(bars) - 1, int((value - low) / room * len(bars)))]
        if math.isfinite(value)
        else " "
        for value in means
    )


def _parts(values: Sequence[float], width: int) -> list[Sequence[float]]:
    count = min(len(values), max(0, width))
    ends = [len(values) * index // count for index in range(count + 1)] if count else [0]
    return [values[start:end] for start, end in pairwise(ends)]


def _mean(part: Sequence[float]) -> float:
    known = [value for value in part if math.isfinite(value)]
    return math.fsum(known) / len(known) if known else math.nan
