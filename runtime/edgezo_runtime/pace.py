"""How far a run is, and the learning rate that goes with it."""

from __future__ import annotations

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.lr_schedules import LR_SCHEDULES


def fraction_done(
    config: TuneConfig, step: int, elapsed_s: float, measured_s: float = 0.0
) -> float:
    """Share of a run that is over, by steps or by time, whichever is further.

    Args:
        config: how to tune, "auto" filled in.
        step: steps done.
        elapsed_s: seconds that they took.
        measured_s: of these, before the first step. The time of a run counts from there, so that
            its first learning rate does not depend on a clock.
    """
    by_steps = step / config.steps if config.steps else 0.0
    if not config.max_time_s:
        return by_steps
    left = config.max_time_s - measured_s
    by_time = (elapsed_s - measured_s) / left if left > 0 else 1.0
    return max(by_steps, by_time)


def rate_factor(config: TuneConfig, step: int, fraction: float) -> float:
    """What the learning rate of a step is multiplied by.

    Args:
        config: how to tune, "auto" filled in.
        step: the step.
        fraction: share of the run that is over before it.
    """
    middle = fraction + 0.5 / config.steps if config.steps else fraction
    schedule = LR_SCHEDULES[config.lr_schedule]
    return _pace(config, step, fraction) * schedule(min(middle, 1.0), 0.0)


def _pace(config: TuneConfig, step: int, fraction: float) -> float:
    """Share of the learning rate that a run of this length takes.

    The way a run goes is the sum of its rates, the noise it collects the sum of their squares.
    Beyond the horizon the way stays the same and more steps buy less noise.
    """
    expected = float(config.steps)
    if not expected and fraction:
        expected = step / fraction
    if not config.horizon or not expected:
        return 1.0
    return min(1.0, config.horizon / expected)
