"""When a run evaluates on its rows for validation: every so often, or as often as costs allow."""

from __future__ import annotations

from typing import Literal

AUTO: Literal["auto"] = "auto"

INTERVALS = (8, 4, 2)
"""Intervals of a run between evaluations: those of fewer are among those of more."""

SHARE = 0.1
"""Evaluations during a run take this share of its time at most, if they can be told apart."""


def is_due(
    every_s: float | Literal["auto"],
    now: tuple[float, float],
    last: tuple[float, float],
    cost_s: float,
) -> bool:
    """Is an evaluation due after a step?

    The answer depends on the last evaluation, not on the session: a run that resumes evaluates the
    states that it would have evaluated.

    Args:
        every_s: tuning time between evaluations; 0 for none; "auto" for equal parts of the run.
        now: fraction of the run that is done, 0 to 1, and seconds of tuning.
        last: both at the last evaluation.
        cost_s: seconds of an evaluation.
    """
    (fraction, seconds), (last_fraction, last_seconds) = now, last
    if every_s != AUTO:
        return bool(every_s) and seconds // every_s > last_seconds // every_s
    if not fraction:
        return False
    parts = intervals(seconds / fraction, cost_s)
    return int(fraction * parts) > int(last_fraction * parts)


def intervals(expected_s: float, cost_s: float) -> int:
    """The number of equal parts of a run, with an evaluation between two of them.

    Args:
        expected_s: seconds of tuning of the whole run.
        cost_s: seconds of an evaluation.
    Returns:
        One of `INTERVALS`, or 1 where an evaluation takes more than `SHARE` of the run.
    """
    fitting = (parts for parts in INTERVALS if (parts - 1) * cost_s <= SHARE * expected_s)
    return next(fitting, 1)
