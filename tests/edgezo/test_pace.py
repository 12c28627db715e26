"""How fast work goes and how long it will take, on a simulated clock."""

from __future__ import annotations

import math

import pytest

from edgezo.cli.terminal.pace import Pace, time_left


@pytest.mark.parametrize("seconds", [1e-3, 0.7, 30.0, 1e5])
def test_a_constant_rate_is_exact_from_the_start(seconds: float) -> None:
    pace = Pace(30.0)
    assert pace.per_second is None
    for _ in range(5):
        pace.add(0.7 * seconds, seconds)
        assert pace.per_second == pytest.approx(0.7, rel=1e-12)


@pytest.mark.parametrize("pieces", [1, 7, 400])
def test_a_change_of_the_rate_shows_as_the_formula_says(pieces: int) -> None:
    """Rate a for s seconds, then b for t: (a (1 - e^-s) e^-t + b (1 - e^-t)) / (1 - e^-(s + t)),
    with s and t in windows; however finely the work is measured."""
    window, a, b, s, t = 20.0, 3.0, 11.0, 50.0, 8.0
    pace = Pace(window)
    for rate, seconds in ((a, s), (b, t)):
        for _ in range(pieces):
            pace.add(rate * seconds / pieces, seconds / pieces)
    u, v = s / window, t / window
    expected = a * (1 - math.exp(-u)) * math.exp(-v) + b * (1 - math.exp(-v))
    expected /= 1 - math.exp(-(u + v))
    assert pace.per_second == pytest.approx(expected, rel=1e-9)
    assert expected == pytest.approx(5.7910, abs=1e-4)  # (1.8459 + 3.6265) / 0.94498


def test_old_work_is_forgotten() -> None:
    pace = Pace(10.0)
    pace.add(1e6, 10.0)
    pace.add(1.0 * 300, 300.0)
    assert pace.per_second == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("odd", [0.0, -3.0, math.nan, math.inf])
def test_an_odd_clock_loses_no_work(odd: float) -> None:
    pace = Pace(10.0)
    pace.add(4, odd)
    assert pace.per_second is None
    pace.add(2, 3.0)
    assert pace.per_second == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("steps_left", "steps_per_s", "seconds_left", "expected"),
    [
        (None, None, None, None),
        (10, None, None, None),  # before the first measurement
        (10, None, 20.0, 20.0),
        (10, 2.0, None, 5.0),
        (10, 2.0, 20.0, 5.0),
        (10, 0.1, 20.0, 20.0),
        (10, 0.0, 20.0, 20.0),
        (None, 2.0, 20.0, 20.0),
        (0, None, None, 0.0),
        (-1, 2.0, 20.0, 0.0),
        (10, 2.0, -185.0, 0.0),  # "-185s left"
    ],
)
def test_the_first_limit_says_how_long(
    steps_left: int | None,
    steps_per_s: float | None,
    seconds_left: float | None,
    expected: float | None,
) -> None:
    assert time_left(steps_left, steps_per_s, seconds_left) == expected
