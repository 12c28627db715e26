"""Heavy-ball momentum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgezo_runtime.methods.rules.rule import (
    Float32Array,
    Slot,
    decay_weights,
    require_decay,
    require_slot,
    require_weight_decay,
)


@dataclass(frozen=True)
class Momentum:
    """m <- momentum m + g;  theta <- (1 - lr weight_decay) theta - lr m.

    In the limit a constant gradient is multiplied by 1 / (1 - momentum), so choose a smaller lr
    than for `Sgd`.

    Attributes:
        momentum: share of m that remains, 0 <= momentum < 1.
        weight_decay: decoupled weight decay per unit of learning rate; 0 disables it.

    Raises:
        UsageError: a setting is out of range.

    Memory:
        One float32 array the size of theta.

    References:
        Polyak 1964. The form without dampening of g, as in torch.optim.SGD.
    """

    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_decay("momentum", self.momentum)
        require_weight_decay(self.weight_decay)

    def init(self, theta: Float32Array) -> Slot:
        """Start with m = 0; see `Rule.init`."""
        return {"m": np.zeros_like(theta)}

    def apply(self, theta: Float32Array, g: Float32Array, slot: Slot, step: int, lr: float) -> Slot:
        """Write the next theta and m in place; see `Rule.apply`."""
        slot = require_slot(slot, "m")
        m = slot["m"]
        np.multiply(m, np.float32(self.momentum), out=m)
        np.add(m, g, out=m)
        decay_weights(theta, lr, self.weight_decay)
        np.subtract(theta, np.float32(lr) * m, out=theta)
        return slot
