"""Learning-rate schedules: the factor that a step's learning rate is multiplied by.

The factor has two parts. A schedule in `LR_SCHEDULES` goes by the fraction of the run that is
done. Runs longer than `TuneConfig.horizon` take smaller steps throughout.

The journal records the learning rate of every step: a replay must not depend on the cosine of the
machine it runs on.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import UsageError

LrSchedule = Callable[[float, float], float]
"""schedule(fraction of the run done, fraction that warms up): a factor, 0 to 1."""

_FALL = 0.4
"""Share of a trapezoid that falls."""


def constant(fraction: float, warmup: float = 0.0) -> float:
    """Rise linearly from 0 to 1 during the warm-up, then stay at 1.

    Args:
        fraction: of the run done, 0 to 1.
        warmup: fraction of the run that warms up, at least 0 and below 1.

    Returns:
        A factor, 0 to 1.

    Raises:
        UsageError: fraction or warmup is out of range.
    """
    rise, _ = _phases(fraction, warmup)
    return rise


def linear(fraction: float, warmup: float = 0.0) -> float:
    """Rise linearly from 0 to 1 during the warm-up, then fall linearly to 0.

    Args, returns and errors as for `constant`.
    """
    rise, done = _phases(fraction, warmup)
    return rise * (1 - done)


def cosine(fraction: float, warmup: float = 0.0) -> float:
    """Rise linearly from 0 to 1 during the warm-up, then fall to 0 along half a cosine.

    Args, returns and errors as for `constant`.

    References:
        Loshchilov, Hutter 2017, arXiv:1608.03983, without restarts.
    """
    rise, done = _phases(fraction, warmup)
    return rise * (1 + math.cos(math.pi * done)) / 2


def trapezoid(fraction: float, warmup: float = 0.0) -> float:
    """Rise linearly from 0 to 1 during the warm-up, stay at 1, fall linearly to 0 at the end.

    The fall takes the last 40 % of the run after the warm-up. The noise of the estimates averages
    out during the fall; until then the run takes full steps.

    Args, returns and errors as for `constant`.

    References:
        Hu et al. 2024, MiniCPM, arXiv:2404.06395 (warm-up, stable, decay).
    """
    rise, done = _phases(fraction, warmup)
    return rise * min(1.0, (1 - done) / _FALL)


LR_SCHEDULES: dict[str, LrSchedule] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "trapezoid": trapezoid,
}


def rate_factor(config: TuneConfig, step: int, fraction: float) -> float:
    """Return the factor of a step's learning rate.

    The schedule is taken at (step + 1/2) / steps, the middle of the step. So neither the first
    step of a warm-up nor the last step of a decay is wasted on a rate of zero.

    Args:
        config: how to tune, "auto" filled in.
        step: number of the step, from 0.
        fraction: fraction of the run done before the step.
    """
    middle = fraction + 0.5 / config.steps if config.steps else fraction
    schedule = LR_SCHEDULES[config.lr_schedule]
    return _horizon_factor(config, step, fraction) * schedule(min(middle, 1.0), 0.0)


def _phases(fraction: float, warmup: float) -> tuple[float, float]:
    """Split the fraction into (share of the warm-up done, share of the rest done), 0 to 1."""
    if not 0 <= fraction <= 1:
        raise UsageError(f"fraction of the run done must be 0 to 1, not {fraction}")
    if not 0 <= warmup < 1:
        raise UsageError(f"warm-up must be at least 0 and below 1 of the run, not {warmup}")
    if fraction < warmup:
        return fraction / warmup, 0.0
    return 1.0, (fraction - warmup) / (1 - warmup)


def _horizon_factor(config: TuneConfig, step: int, fraction: float) -> float:
    """Return the factor that a run longer than the horizon takes.

    The sum of a run's learning rates is the distance it covers; the sum of their squares is the
    noise it collects. Beyond the horizon the distance stays the same, and more steps reduce the
    noise.
    """
    expected = float(config.steps)
    if not expected and fraction:
        expected = step / fraction
    if not config.horizon or not expected:
        return 1.0
    return min(1.0, config.horizon / expected)
