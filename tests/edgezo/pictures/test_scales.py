"""Scales, ticks and thinned curves."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgezo.pictures.scales import (
    Scale,
    finite,
    nice_ticks,
    plain_number,
    smoothed,
    thinned,
    time_ticks,
)

NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)


def test_a_scale_keeps_to_its_ends() -> None:
    scale = Scale(10, 20, 100, 0)
    assert [scale(value) for value in (10, 15, 20, 0, 99)] == [100, 50, 0, 100, 0]


@given(NUMBERS, NUMBERS)
def test_ticks_cover_the_range(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 12
    room = 1e-6 * max(abs(low), abs(high), 1e-300)
    assert ticks[0] <= low + room
    assert ticks[-1] >= high - room
    steps = [after - before for before, after in pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


def test_ticks_are_round() -> None:
    assert nice_ticks(0, 1) == [0, 0.5, 1]
    assert nice_ticks(0.13, 0.94) == [0, 0.5, 1]
    assert nice_ticks(52, 88) == [50, 60, 70, 80, 90]
    assert nice_ticks(math.nan, 1) == [0, 1]
    assert time_ticks(0, 242) == [0, 120, 240, 360]
    assert time_ticks(0, 3 * 86400, 4) == [0, 86400, 172800, 259200]
    assert time_ticks(0, 0.5, 3)[-1] == 0.5


def test_numbers_of_an_axis() -> None:
    shown = [plain_number(value) for value in (0, 1250, 0.05, -0.5, 5e-4, 2e-5, 3e8, 12.5)]
    assert shown == ["0", "1,250", "0.05", "-0.5", "0.0005", "2e-5", "3e8", "12.5"]


def test_points_that_are_no_numbers_are_left_out() -> None:
    assert finite([1, 2, math.nan, 4], [1, math.nan, 3, math.inf]) == [(1, 1)]


def test_thinned_curves_keep_their_extremes() -> None:
    points = [(float(x), math.sin(x / 50)) for x in range(10_000)]
    points[4321] = (4321.0, 9.0)
    points[7654] = (7654.0, -9.0)
    few = thinned(points, 100)
    assert len(few) <= 110
    assert few == sorted(few)
    assert {points[0], points[-1], points[4321], points[7654]} <= set(few)
    assert thinned(points[:50], 100) == points[:50]


def test_smoothed_points_are_means() -> None:
    assert smoothed([(0, 2.0), (1, 2.0), (2, 2.0)], 3) == [(0, 2.0), (1, 2.0), (2, 2.0)]
    keep = math.exp(-0.5)
    assert smoothed([(0, 1.0), (1, 4.0)], 2)[1][1] == pytest.approx((keep + 4) / (keep + 1))
    assert smoothed([(0, 1.0), (1, 4.0)], 0) == [(0, 1.0), (1, 4.0)]
