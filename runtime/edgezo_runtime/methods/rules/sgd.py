"""Plain stochastic gradient descent; with `two_point` it is MeZO."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgezo_runtime.methods.rules.rule import (
    Float32Array,
    Slot,
    decay_weights,
    require_weight_decay,
)


@dataclass(frozen=True)
class Sgd:
    """theta <- (1 - lr weight_decay) theta - lr g.

    Attributes:
        weight_decay: decoupled weight decay per unit of learning rate; 0 disables it.

    Raises:
        UsageError: weight_decay is negative or not finite.
    """

    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_weight_decay(self.weight_decay)

    def init(self, theta: Float32Array) -> Slot:
        """Return None: the rule has no state."""
        return None

    def apply(self, theta: Float32Array, g: Float32Array, slot: Slot, step: int, lr: float) -> Slot:
        """Write the next theta in place; see `Rule.apply`."""
        decay_weights(theta, lr, self.weight_decay)
        np.subtract(theta, np.float32(lr) * g, out=theta)
        return None
