"""Wilson intervals against their definition, and their picture."""

from __future__ import annotations

import math
from statistics import NormalDist
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgezo.pictures.intervals import Z95, ShareOfRows, interval_chart, wilson


def test_the_quantile() -> None:
    assert NormalDist().inv_cdf(0.975) == pytest.approx(Z95)


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_the_ends_solve_the_equation_of_the_score_test(right: int, rows: int) -> None:
    share = min(right, rows) / rows
    for end in wilson(share, rows):
        room = Z95 * math.sqrt(end * (1 - end) / rows)
        assert abs(share - end) == pytest.approx(room, abs=1e-7)


def test_known_values() -> None:
    """10 of 20, as in textbooks: .299 to .701."""
    assert wilson(0.5, 20) == pytest.approx((0.2993, 0.7007), abs=1e-4)
    assert wilson(0.3, 0) == (0, 1)


def test_dots_lie_within_their_intervals() -> None:
    shares = [ShareOfRows("before", 0.5, 100, 1), ShareOfRows("after", 1.0, 100)]
    svg = ElementTree.fromstring(interval_chart("x", shares, 360))
    lines = [
        (float(own.get("x1") or 0), float(own.get("x2") or 0))
        for own in svg.iter("{http://www.w3.org/2000/svg}line")
        if (own.get("class") or "").startswith("line")
    ]
    dots = [float(own.get("cx") or 0) for own in svg.iter("{http://www.w3.org/2000/svg}circle")]
    assert all(start <= dot <= end <= 360 for (start, end), dot in zip(lines, dots, strict=True))
    texts = [own.text for own in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"before", "after", "50.0 %", "100.0 %"} <= set(texts)
