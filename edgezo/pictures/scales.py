"""From numbers to places and labels: scales, ticks, and points that a picture can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from numbers to places.

    Attributes:
        low: smallest number.
        high: largest number; above `low`.
        start: place of `low`.
        end: place of `high`.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a number; beyond the range, that of its end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers that cover a range: multiples of 1, 2 or 5 times a power of ten.

    Args:
        low: start of the range.
        high: its end.
        most: ticks, about.
    Returns:
        Ascending numbers; the first is `low` or below, the last `high` or above.
    """
    if not math.isfinite(low) or not math.isfinite(high):
        return [0.0, 1.0]
    if high - low <= abs(high) * 1e-9:
        room = abs(high) * 0.1 or 1.0
        low, high = low - room, high + room
    raw = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * power for unit in (1, 2, 5, 10) if unit * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


_TIMES = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Seconds between ticks of an axis of time that is at most some days long."""


def time_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """The same for seconds: multiples of round times, such as 30 s, 2 minutes or 6 hours."""
    raw = (high - low) / max(1, most - 1)
    step = next((step for step in _TIMES if step >= raw), 86400 * math.ceil(raw / 86400))
    if high - low < 1:
        return nice_ticks(low, high, most)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(index * step) for index in range(first, last + 1)]


def plain_number(value: float) -> str:
    """A number of an axis: "1,250", "0.05", "2e-5"."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e7:
        text, _, power = f"{value:.3g}".partition("e")
        if power:
            return f"{text}e{int(power)}"
    else:
        text = f"{value:,.4f}".rstrip("0").rstrip(".")
    return text


def finite(xs: Sequence[float], ys: Sequence[float]) -> list[Point]:
    """The points whose two numbers are finite."""
    pairs = zip(xs, ys, strict=True)
    return [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


def thinned(points: Sequence[Point], most: int = 400) -> list[Point]:
    """Fewer points that look alike: the lowest and the highest of each part, and both ends.

    Args:
        points: ascending by their first number.
        most: points that are left, about.
    """
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most // 2))
    kept = [points[0]]
    for start in range(0, len(points), size):
        part = points[start : start + size]
        ends = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept.extend(sorted(ends))
    kept.append(points[-1])
    return list(dict.fromkeys(kept))


def smoothed(points: Sequence[Point], span: float) -> list[Point]:
    """Means with weights that fall exponentially with the distance to earlier points.

    The weights of the points before sum to one from the first point on, so that a constant stays
    what it is.

    Args:
        points: ascending by their first number.
        span: number of points over which a weight falls to 1/e; 0 smooths nothing.
    """
    if span <= 0:
        return list(points)
    keep = math.exp(-1 / span)
    total = weight = 0.0
    found: list[Point] = []
    for x, y in points:
        total, weight = keep * total + y, keep * weight + 1.0
        found.append((x, total / weight))
    return found
