"""Notices from the losses of a run that it diverges, or that it does not get on any more.

What it says is a function of the recorded losses, so a replay of the journal comes to the same.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["", "good", "diverged", "plateau"]

RISE = 3.0
"""Smoothed loss over the best one, in standard deviations of a step's loss, that is divergence."""

SHARE = 0.1
"""The same as a share of the best loss, on top."""

GOOD_EVERY = 25
"""Steps between two copies to return to."""

SETTLED = 10
"""Steps until the smoothed loss means anything."""

WINDOW = 200
"""Steps that are held against as many before them to see a plateau."""

MOST_RETURNS = 8
"""A run that diverges more often is hopeless."""

_DECAY, _SPREAD_DECAY = 0.9, 0.98


@dataclass(frozen=True, slots=True)
class LossMonitor:
    """What is known of a run's losses.

    Attributes:
        mean: smoothed loss, before the correction for its start.
        weight: of the mean, 0 at the start.
        variance: smoothed half square of a step's loss less the one before it, likewise; losses
            that move to another level do not widen it.
        variance_weight: of the variance.
        previous: loss of the step before; None at the start.
        best: least corrected mean.
        seen: losses since the start or the last return.
        window: mean loss of the window that is filling, times its length.
        last: mean loss of the window before, or infinity.
        factor: on the learning rate.
        returns: how often the run went back.
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
        """Take in the loss of a step.

        Args:
            loss: mean over the probes of a step, nats.

        Returns:
            What is known then, and a verdict: "good" where the trainables are worth a copy,
            "diverged", "plateau" where the last `WINDOW` steps brought nothing, or "".
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
        # two means of WINDOW losses each differ by this much by chance
        chance = spread * math.sqrt(2 / WINDOW)
        verdict: Verdict = "plateau" if found > self.last - chance else "good"
        return dataclasses.replace(self, window=0.0, last=found), verdict

    def returned(self) -> LossMonitor:
        """What is known after the run went back: half the rate, and the best loss there was."""
        return LossMonitor(best=self.best, factor=self.factor / 2, returns=self.returns + 1)
