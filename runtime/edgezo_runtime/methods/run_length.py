"""The length of a run: the share that is done, and the limit that ends it."""

from __future__ import annotations

from typing import Literal

from edgezo_runtime.config import TuneConfig

Limit = Literal["steps", "time"]
"""What ends a run that nobody stops: its steps, given or from `epochs`; or its longest time."""


def fraction_done(
    config: TuneConfig, step: int, elapsed_s: float, measured_s: float = 0.0
) -> float:
    """Return the fraction of a run that is done, by steps or by time, whichever is larger.

    Args:
        config: how to tune, "auto" filled in.
        step: number of steps done.
        elapsed_s: seconds since the run began.
        measured_s: the part of `elapsed_s` that measured rates before the first step. The time of
            a run counts from there, so the first learning rate does not depend on a clock.
    """
    return max(_by_steps(config, step), _by_time(config, elapsed_s, measured_s))


def limit_reached(
    config: TuneConfig, step: int, elapsed_s: float, measured_s: float = 0.0
) -> Limit | None:
    """Return the limit that a run has reached; "steps" if it has reached both.

    Args as for `fraction_done`.
    """
    if _by_steps(config, step) >= 1:
        return "steps"
    return "time" if _by_time(config, elapsed_s, measured_s) >= 1 else None


def _by_steps(config: TuneConfig, step: int) -> float:
    return step / config.steps if config.steps else 0.0


def _by_time(config: TuneConfig, elapsed_s: float, measured_s: float) -> float:
    longest_s = float(config.max_time_s)
    if not longest_s:
        return 0.0
    left = longest_s - measured_s
    return (elapsed_s - measured_s) / left if left > 0 else 1.0
