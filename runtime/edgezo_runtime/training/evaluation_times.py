"""When a run evaluates on its rows for validation: every so often, or as often as costs allow."""

from __future__ import annotations

from typing import Literal

from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.training.run import Run

AUTO: Literal["auto"] = "auto"

INTERVALS = (8, 4, 2)
"""Intervals of a run between evaluations: those of fewer are among those of more."""

SHARE = 0.1
"""Evaluations during a run take this share of its time at most, if they can be told apart."""

_FIRST_ORDER_PASSES = 3
"""Passes that a first-order step is worth: forward, forward once more, and backward."""

_CACHED = 4
"""Times as many tokens as a step takes an evaluation takes where answers follow cached prompts."""


def is_due(
    every_s: float | Literal["auto"],
    now: tuple[float, float],
    last: tuple[float, float],
    cost: float,
) -> bool:
    """Is an evaluation due after a step?

    The answer depends on the last evaluation, not on the session: a run that resumes evaluates the
    states that it would have evaluated.

    Args:
        every_s: tuning time between evaluations; 0 for none; "auto" for equal parts of the run.
        now: fraction of the run that is done, 0 to 1, and seconds of tuning; "auto" takes steps as
            well as seconds.
        last: both at the last evaluation.
        cost: of an evaluation, in seconds, or in steps if `now` has steps.
    """
    (fraction, amount), (last_fraction, last_amount) = now, last
    if every_s != AUTO:
        return bool(every_s) and amount // every_s > last_amount // every_s
    if not fraction:
        return False
    parts = intervals(amount / fraction, cost)
    return int(fraction * parts) > int(last_fraction * parts)


def intervals(expected: float, cost: float) -> int:
    """The number of equal parts of a run, with an evaluation between two of them.

    Args:
        expected: seconds of tuning of the whole run, or its steps.
        cost: of an evaluation, in the same unit.
    Returns:
        One of `INTERVALS`, or 1 where an evaluation takes more than `SHARE` of the run.
    """
    fitting = (parts for parts in INTERVALS if (parts - 1) * cost <= SHARE * expected)
    return next(fitting, 1)


def cost_in_steps(run: Run, rows: ExampleSet) -> float:
    """What an evaluation costs, in steps, by the tokens that both take through the model.

    No clock is read: a run that ends by steps alone evaluates the same states every time.

    Args:
        run: the run.
        rows: its rows for validation.
    """
    each = float(run.examples.sequence_lengths().sum()) / len(run.examples)
    if run.scope == "answer":  # most of a prompt is cached between steps
        each /= _CACHED
    layout = run.trajectory.layout
    passes = run.groups if layout.blocks else 0 if layout.feedback is None else 1
    if run.first_order_blocks:
        passes += _FIRST_ORDER_PASSES if layout.carried is None else 1
    return float(rows.sequence_lengths().sum()) / (each * run.batch_size * passes)
