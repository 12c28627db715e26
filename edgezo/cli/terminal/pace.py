"""How fast work goes, smoothed over time, and how long it will take."""

from __future__ import annotations

import math

WINDOW_S = 30.0
"""Time in which the weight of a measurement falls to 1/e."""


class Pace:
    """A rate per second, averaged with weights that fall exponentially with age.

    After work at the rates r(t) for T seconds the pace is
    integral of r(t) w(T - t) dt / integral of w(T - t) dt, with w(age) = exp(-age / window).
    So a constant rate is exact from the first measurement on, however long each one takes.

    Args:
        window_s: time in which the weight of a measurement falls to 1/e.
    """

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._weighted = 0.0
        self._weight = 0.0
        self._waiting = 0.0

    def add(self, amount: float, seconds: float) -> None:
        """Take work into account.

        Args:
            amount: of work that was done.
            seconds: that it took. If a clock says that it took none, the amount counts with the
                next measurement.
        """
        self._waiting += amount
        if not 0 < seconds < math.inf:
            return
        fresh = -math.expm1(-seconds / self._window_s)  # integral of w, in windows
        self._weighted += fresh * (self._waiting / seconds - self._weighted)
        self._weight += fresh * (1 - self._weight)
        self._waiting = 0.0

    @property
    def per_second(self) -> float | None:
        """The rate; None before the first measurement."""
        return self._weighted / self._weight if self._weight else None


def time_left(
    steps_left: int | None, steps_per_s: float | None, seconds_left: float | None
) -> float | None:
    """Seconds until the first of two limits; None if neither is known, never below zero.

    Args:
        steps_left: steps until the end; None if steps do not limit the work.
        steps_per_s: their rate; None before the first measurement.
        seconds_left: until the time is over; None if time does not limit the work.
    """
    found = [] if seconds_left is None else [seconds_left]
    if steps_left is not None and steps_left <= 0:
        found.append(0.0)
    elif steps_left is not None and steps_per_s:
        found.append(steps_left / steps_per_s)
    return max(0.0, min(found)) if found else None
