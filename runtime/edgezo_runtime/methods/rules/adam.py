"""Adam, and AdamW if `weight_decay` is set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.methods.rules.rule import (
    Float32Array,
    Slot,
    decay_weights,
    require_decay,
    require_slot,
    require_weight_decay,
)


@dataclass(frozen=True)
class Adam:
    """Steps scaled by running moments of the gradient, with bias correction.

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
    theta <- (1 - lr weight_decay) theta - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    t counts the updates of this tensor, not the steps of the run, so the correction stays right
    when a block is inactive for a while. b1^t and b2^t are running products, because a power
    function may differ between machines in the last bit.

    Attributes:
        b1: decay of the first moment, 0 <= b1 < 1.
        b2: decay of the second moment, 0 <= b2 < 1.
        eps: added to the root of the second moment, > 0 (not the scale of the perturbation).
        weight_decay: decoupled weight decay per unit of learning rate; 0 disables it.

    Raises:
        UsageError: a setting is out of range.

    Memory:
        Two float32 arrays the size of theta; two more during `apply`.

    References:
        Kingma, Ba 2015, arXiv:1412.6980, Algorithm 1.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_decay("b1", self.b1)
        require_decay("b2", self.b2)
        require_weight_decay(self.weight_decay)
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise UsageError(f"adam's eps must be a finite number above zero, not {self.eps}")

    def init(self, theta: Float32Array) -> Slot:
        """Start with m = v = 0 and b1^0 = b2^0 = 1; see `Rule.init`."""
        return {"m": np.zeros_like(theta), "v": np.zeros_like(theta), "powers": np.ones(2)}

    def apply(self, theta: Float32Array, g: Float32Array, slot: Slot, step: int, lr: float) -> Slot:
        """Write the next theta and moments in place; see `Rule.apply`."""
        slot = require_slot(slot, "m", "v", "powers")
        m, v, powers = slot["m"], slot["v"], slot["powers"]
        _blend(m, g, self.b1)
        _blend(v, np.square(g), self.b2)
        np.multiply(powers, np.array([self.b1, self.b2]), out=powers)
        power1, power2 = (float(p) for p in powers)  # b1^t, b2^t
        if not (0 <= power1 < 1 and 0 <= power2 < 1):
            raise RunFileError(f"adam: powers {power1:g} and {power2:g} cannot come from a run")
        scale = np.sqrt(v)  # float32, the shape of theta
        np.multiply(scale, np.float32(1 / math.sqrt(1 - power2)), out=scale)
        np.add(scale, np.float32(self.eps), out=scale)
        np.divide(m, scale, out=scale)
        np.multiply(scale, np.float32(lr / (1 - power1)), out=scale)
        decay_weights(theta, lr, self.weight_decay)
        np.subtract(theta, scale, out=theta)
        return slot


def _blend(mean: npt.NDArray[Any], value: Float32Array, decay: float) -> None:
    """mean <- decay mean + (1 - decay) value, in place."""
    np.multiply(mean, np.float32(decay), out=mean)
    np.add(mean, np.float32(1 - decay) * value, out=mean)
