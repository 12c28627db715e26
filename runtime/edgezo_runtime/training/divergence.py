"""Tells from the losses of a run whether it diverges or has reached a plateau.

The verdicts depend on the recorded losses only, so a replay of the journal gives the same ones.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["", "good", "diverged", "plateau"]

RISE = 3.0
"""Standard deviations of a step's loss by which a diverged smoothed loss is above the best."""

SHARE = 0.1
"""Share of the best loss that is added to that distance."""

GOOD_EVERY = 25
"""Steps between two copies that a run can roll back to."""

SETTLED = 10
"""Steps until the smoothed loss is meaningful."""

WINDOW = 200
"""Length of the two windows of steps that are compared to detect a plateau."""

MOST_RETURNS = 8
"""Rollbacks after which a run ends."""

_DECAY, _SPREAD_DECAY = 0.9, 0.98


@dataclass(frozen=True, slots=True)
class LossMonitor:
    """Statistics of a run's losses.

    Attributes:
        mean: smoothed loss, before division by its weight.
        weight: weight of the mean, 0 before the first step.
        variance: smoothed half square of the difference between the losses of two successive
            steps, before division by its weight; losses that move to another level do not widen it.
        variance_weight: weight of the variance.
        previous: loss of the previous step; None before the first step.
        best: lowest smoothed loss.
        seen: losses since the first step or the last rollback.
        window: sum of the losses in the current window.
        last: mean loss of the previous window, or infinity.
        factor: factor on the learning rate.
        returns: number of rollbacks.
    """

    mean: float = 0.0
    weight: float = 0.0
    variance: float = 0.0
    variance_weight: float = 0.0
    previous: float | None = None
    best: float = math.inf
    seen: int = 0
    window: float = 0.0
    last: float = math.inf
    factor: float = 1.0
    returns: int = 0

    def see(self, loss: float) -> tuple[LossMonitor, Verdict]:
        """Add the loss of a step.

        Args:
            loss: mean over the probes of a step, nats.

        Returns:
            The new statistics and a verdict: "good" if the trainables are worth a copy, "diverged",
            "plateau" if the loss did not fall in the last `WINDOW` steps, or "".
        """
        change = 0.0 if self.previous is None else loss - self.previous
        now = dataclasses.replace(
            self,
            mean=_DECAY * self.mean + (1 - _DECAY) * loss,
            weight=_DECAY * self.weight + (1 - _DECAY),
            variance=_SPREAD_DECAY * self.variance + (1 - _SPREAD_DECAY) * change**2 / 2,
            variance_weight=_SPREAD_DECAY * self.variance_weight + (1 - _SPREAD_DECAY),
            previous=loss,
            seen=self.seen + 1,
            window=self.window + loss,
        )
        smoothed = now.mean / now.weight
        spread = math.sqrt(now.variance / now.variance_weight)
        if now.seen < SETTLED:
            return now, ""
        if smoothed > now.best + RISE * spread + SHARE * abs(now.best):
            return now, "diverged"
        now = dataclasses.replace(now, best=min(now.best, smoothed))
        if now.seen % WINDOW == 0:
            return now._next_window(spread)
        good = now.seen % GOOD_EVERY == 0 and smoothed <= now.best + spread / 2
        return now, "good" if good else ""

    def _next_window(self, spread: float) -> tuple[LossMonitor, Verdict]:
        found = self.window / WINDOW
        # two means of WINDOW losses each differ by about this much by chance
        chance = spread * math.sqrt(2 / WINDOW)
        verdict: Verdict = "plateau" if found > self.last - chance else "good"
        return dataclasses.replace(self, window=0.0, last=found), verdict

    def rolled_back(self) -> LossMonitor:
        """The statistics after a rollback: half the learning rate, and the best loss."""
        return LossMonitor(best=self.best, factor=self.factor / 2, returns=self.returns + 1)
