"""Shaping: normalize and clip projected gradients before a rule applies them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.estimators import Term


@dataclass(frozen=True, slots=True)
class Normalizer:
    """Divide projected gradients by their running root mean square, or clip them by it, or both.

    c' = clip(c / rms, -clip, clip),  rms^2 = EMA of c^2 over directions and steps (bias-corrected)

    Without `divide` the clipped value is multiplied by rms again.

    One scalar serves all tensors, so the direction of the estimate does not change. The learning
    rate becomes a step length that depends neither on the scale of the loss nor on eps nor on the
    batch size. Clipping bounds the influence of an outlier example.

    Attributes:
        decay: of the running mean square, in [0, 1).
        clip: in units of the root mean square; infinity for none.
        divide: divide by the root mean square; False clips only.
    References:
        MEAZO (2605.03869) divides by a scalar second moment; QZO (arXiv:2505.13430) clips.
    """

    decay: float = 0.95
    clip: float = 2.5
    divide: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise UsageError(f"decay {self.decay}: must be in [0, 1)")
        if not self.clip > 0:
            raise UsageError(f"clip {self.clip}: must be above zero")

    def init(self) -> tuple[float, float]:
        """Return (sum of weighted squares, sum of weights), both float64."""
        return 0.0, 0.0

    def apply(
        self, terms: Sequence[Term], state: tuple[float, float]
    ) -> tuple[list[Term], tuple[float, float]]:
        """Shape the terms of one step and update the running square.

        Each coefficient of an estimate over M directions contains the weight 1/M. The weight stays;
        the projected gradient is normalized.
        """
        count = sum(len(term.coeff) for term in terms)
        square = math.fsum(v * v for term in terms for v in term.coeff) * count
        total = self.decay * state[0] + (1 - self.decay) * square
        weight = self.decay * state[1] + (1 - self.decay)
        rms = math.sqrt(total / weight)
        if rms == 0 or not count:
            return list(terms), (total, weight)
        unit = (1 if self.divide else rms) / count
        shaped = [
            replace(
                term,
                coeff=tuple(
                    max(-self.clip, min(self.clip, value * count / rms)) * unit
                    for value in term.coeff
                ),
            )
            for term in terms
        ]
        return shaped, (total, weight)
