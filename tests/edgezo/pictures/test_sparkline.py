"""Curves of one line."""

from __future__ import annotations

import math

from edgezo.pictures.sparkline import BARS, PLAIN_BARS, sparkline


def test_low_and_high() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == BARS
    assert sparkline([7, 0], 5) == "█▁"
    assert sparkline([3, 3, 3], 3) == "▁▁▁"
    assert set(sparkline(range(100), 20, PLAIN_BARS)) <= set(PLAIN_BARS)


def test_it_keeps_to_its_width_and_leaves_gaps() -> None:
    assert len(sparkline(range(1000), 20)) == 20
    assert sparkline([1, math.nan, 2], 3) == "▁ █"
    assert sparkline([math.nan], 3) == sparkline([], 3) == sparkline([1], 0) == ""
