"""Steps corrected by the gradient at an anchor point."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.rules.rule import Float32Array, Slot, require_slot


@dataclass(frozen=True)
class Svrg:
    """SVRG steps: at an anchor t <- theta, a <- g, theta <- theta - anchor_lr lr g; in other steps
    theta <- theta - lr (g + a), where g is the difference of the estimates at theta and at t.

    The rule needs the estimator `variance_reduced` with the same `anchor_every`. Every block must
    be active in every step, or a block could miss its anchor.

    Attributes:
        anchor_every: steps from one anchor to the next, at least 1.
        anchor_lr: learning rate at an anchor, in units of lr, > 0.

    Raises:
        UsageError: a setting is out of range.

    Memory:
        Two float32 arrays the size of theta.

    References:
        Gautam et al. 2024, arXiv:2404.08080, Algorithm 1; anchor_lr is its eta_1 / eta_2.
    """

    anchor_every: int = 2
    anchor_lr: float = 10.0

    def __post_init__(self) -> None:
        if self.anchor_every < 1:
            raise UsageError(f"`anchor_every` {self.anchor_every}: must be 1 or more")
        if not (math.isfinite(self.anchor_lr) and self.anchor_lr > 0):
            raise UsageError(f"`anchor_lr` {self.anchor_lr}: must be a number above zero")

    def init(self, theta: Float32Array) -> Slot:
        """Start with the anchor at theta; see `Rule.init`."""
        return {"anchor": theta.copy(), "gradient": np.zeros_like(theta)}

    def apply(self, theta: Float32Array, g: Float32Array, slot: Slot, step: int, lr: float) -> Slot:
        """Write the next theta in place; see `Rule.apply`."""
        slot = require_slot(slot, "anchor", "gradient")
        if step % self.anchor_every == 0:
            slot["anchor"][...] = theta
            slot["gradient"][...] = g
            np.subtract(theta, np.float32(lr * self.anchor_lr) * g, out=theta)
        else:
            np.subtract(theta, np.float32(lr) * (g + slot["gradient"]), out=theta)
        return slot
