"""Curves over steps or time, with marks, limits and events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from edgezo.pictures.scales import Point, Scale, nice_ticks, plain_number, thinned
from edgezo.pictures.svg import escaped, path, picture, tag, words
from edgezo.pictures.theme import SERIES

Style = Literal["line", "thin", "dashed", "dots"]

_TOP, _RIGHT, _BOTTOM = 14.0, 14.0, 36.0
_CHAR = 6.9
"""Width of a character of a label, about."""


@dataclass(frozen=True, slots=True)
class Line:
    """A curve.

    Attributes:
        points: ascending by their first number.
        label: for the legend; empty for none.
        series: number of its colour.
        style: a thick line, a thin one, a dashed one, or a thick one with a dot at every point.
    """

    points: Sequence[Point]
    label: str = ""
    series: int = 0
    style: Style = "line"


@dataclass(frozen=True, slots=True)
class Band:
    """An area between two numbers at each place, such as an interval."""

    points: Sequence[tuple[float, float, float]]
    series: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """A point that has a label."""

    point: Point
    label: str
    series: int = 0


@dataclass(frozen=True, slots=True)
class LineChart:
    """What a chart shows.

    Attributes:
        title: in words, for those who do not see it.
        lines: the curves.
        x_label: what the horizontal axis is.
        bands: areas behind the curves.
        marks: points with labels.
        limits: horizontal lines with labels.
        events: vertical, numbered lines; their texts show where a pointer rests.
        y_text: label of a number of the vertical axis.
        x_text: label of a number of the horizontal axis.
        x_ticks: round numbers of the horizontal axis, as `nice_ticks` makes them.
        from_zero: does the vertical axis begin at zero?
        top: largest number of the vertical axis; None takes that of the curves.
    """

    title: str
    lines: Sequence[Line]
    x_label: str = "step"
    bands: Sequence[Band] = ()
    marks: Sequence[Mark] = ()
    limits: Sequence[tuple[float, str]] = ()
    events: Sequence[tuple[float, str]] = ()
    y_text: Callable[[float], str] = plain_number
    x_text: Callable[[float], str] = plain_number
    x_ticks: Callable[[float, float, int], list[float]] = nice_ticks
    from_zero: bool = False
    top: float | None = None

    def svg(self, width: float, height: float) -> str:
        """The chart as a picture of its own."""
        return picture(width, height, self.title, self.drawing(width, height))

    def drawing(self, width: float, height: float) -> str:
        """The elements of the chart; a sentence where there is nothing to draw."""
        if not any(line.points for line in self.lines):
            middle = {"text_anchor": "middle"}
            return words(width / 2, height / 2, "nothing was recorded", "t m", **middle)
        ticks = self._y_ticks()
        left = 12 + _CHAR * max(len(self.y_text(tick)) for tick in ticks)
        y = Scale(ticks[0], ticks[-1], height - _BOTTOM, _TOP)
        x = self._x_scale(left, width - _RIGHT)
        parts = [*self._axes(x, y, ticks, width, height)]
        for band in self.bands:
            upper = [(x(at), y(high)) for at, _, high in band.points]
            lower = [(x(at), y(low)) for at, low, _ in reversed(band.points)]
            parts.append(path([*upper, *lower], f"band f-s{band.series % SERIES}", closed=True))
        for number, (at, text) in enumerate(self.events, 1):
            parts.append(self._event(x(at), height, number, text))
        for value, text in self.limits:
            parts.append(tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), cls="rule"))
            place = y(value) - 6 if y(value) - 6 > 11 else y(value) + 14
            parts.append(words(x.start + 4, place, text, "t m small halo"))
        parts += [self._line(line, x, y) for line in self.lines]
        parts += [self._mark(mark, x, y) for mark in self.marks]
        return "".join(parts)

    def _values(self) -> list[float]:
        found = [value for line in self.lines for _, value in line.points]
        found += [value for band in self.bands for _, *both in band.points for value in both]
        return found + [value for value, _ in self.limits]

    def _y_ticks(self) -> list[float]:
        values = self._values()
        low, high = min(values), max(values)
        if self.top is not None:
            high = min(high, self.top)
            low = min(low, high)
        return nice_ticks(min(0.0, low) if self.from_zero else low, high)

    def _x_scale(self, start: float, end: float) -> Scale:
        places = [at for line in self.lines for at, _ in line.points]
        low, high = min(places), max(places)
        return Scale(low, high if high > low else low + 1, start, end)

    def _axes(
        self, x: Scale, y: Scale, ticks: list[float], width: float, height: float
    ) -> list[str]:
        parts = []
        for tick in ticks:
            cls = "axis" if tick == ticks[0] else "grid"
            parts.append(tag("line", x1=x.start, x2=x.end, y1=y(tick), y2=y(tick), cls=cls))
            label = self.y_text(tick)
            parts.append(words(x.start - 6, y(tick) + 4, label, "t m small", text_anchor="end"))
        most = max(2, int((x.end - x.start) / 56))
        inside = [tick for tick in self.x_ticks(x.low, x.high, most) if x.low <= tick <= x.high]
        for tick in inside:
            label = self.x_text(tick)
            place = min(x(tick), width - 2 - _CHAR * len(label) / 2)
            parts.append(
                words(place, height - _BOTTOM + 15, label, "t m small", text_anchor="middle")
            )
        parts.append(words(x.end, height - 4, self.x_label, "t m small", text_anchor="end"))
        return parts

    def _line(self, line: Line, x: Scale, y: Scale) -> str:
        series = line.series % SERIES
        places = [(x(at), y(value)) for at, value in thinned(line.points)]
        cls = {"dots": "line"}.get(line.style, line.style)
        parts = [path(places, f"{cls} k-s{series}")]
        if line.style == "dots" or len(places) == 1:
            for (at, value), (cx, cy) in zip(thinned(line.points), places, strict=True):
                told = tag("title", escaped(f"{self.x_text(at)}: {self.y_text(value)}"))
                parts.append(tag("circle", told, cx=cx, cy=cy, r=2.75, cls=f"f-s{series}"))
        return "".join(parts)

    def _mark(self, mark: Mark, x: Scale, y: Scale) -> str:
        cx, cy = x(mark.point[0]), y(mark.point[1])
        half = _CHAR * len(mark.label) / 2
        place = min(max(cx, x.start + half), x.end - half)
        above = cy - 10 if cy - 10 > _TOP + 8 else cy + 20
        series = mark.series % SERIES
        ring = tag("circle", cx=cx, cy=cy, r=5.0, cls=f"ring k-s{series}")
        return ring + words(place, above, mark.label, "t b small halo", text_anchor="middle")

    def _event(self, place: float, height: float, number: int, text: str) -> str:
        ends = {"x1": place, "x2": place, "y1": _TOP, "y2": height - _BOTTOM}
        line = tag("line", tag("title", escaped(text)), cls="event", **ends)
        return line + words(place + 3, _TOP + 9, number, "t m small halo")
