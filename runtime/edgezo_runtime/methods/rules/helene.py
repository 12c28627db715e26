"""HELENE: annealed momentum over a clipped diagonal Hessian."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.rules.rule import (
    Float32Array,
    Slot,
    decay_weights,
    require_decay,
    require_slot,
    require_weight_decay,
)


@dataclass(frozen=True)
class Helene:
    """Second-order steps with a lower bound on the curvature of each layer.

    a_t = b1 + (1 - b1) exp(-t / anneal_steps);  m <- b1 m + a_t g
    every hessian_every steps: h <- b2 h + (1 - b2) B g^2
    theta <- (1 - lr weight_decay) theta - lr m / (gamma max(h, floor mean(h)) + eps)

    The floor limits a layer's step where the curvature is small. Its constants are not published.
    Here the floor is proportional to the layer's mean curvature, so it follows the scale of the
    loss.

    Attributes:
        b1: decay of the momentum, 0 <= b1 < 1.
        b2: decay of the curvature, 0 <= b2 < 1.
        batch_size: B of the Gauss-Newton-Bartlett estimate, at least 1.
        anneal_steps: number of steps in which the weight of a new gradient falls from 1 to b1, > 0.
        hessian_every: number of steps between estimates of the curvature, at least 1.
        floor: lower bound of the curvature in units of the layer's mean, > 0.
        gamma: factor of the curvature, > 0.
        eps: added to the scaled curvature, > 0 (not the scale of the perturbation).
        weight_decay: decoupled weight decay per unit of learning rate; 0 disables it.

    Raises:
        UsageError: a setting is out of range.

    Memory:
        Two float32 arrays the size of theta; one more during `apply`.

    References:
        Zhao et al. 2024, arXiv:2411.10696 (HELENE): annealing, A-GNB with true labels and
        layer-wise clipping. B g^2 as in Liu et al. 2023, arXiv:2305.14342 (Sophia).
    """

    b1: float = 0.9
    b2: float = 0.99
    batch_size: int = 16
    anneal_steps: float = 1000.0
    hessian_every: int = 10
    floor: float = 1.0
    gamma: float = 1.0
    eps: float = 1e-12
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_decay("b1", self.b1)
        require_decay("b2", self.b2)
        require_weight_decay(self.weight_decay)
        for name in ("anneal_steps", "floor", "gamma", "eps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"`{name}` {value}: must be a number above zero")
        for name in ("batch_size", "hessian_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"`{name}` {getattr(self, name)}: must be 1 or more")

    def init(self, theta: Float32Array) -> Slot:
        """Start with m = h = 0; see `Rule.init`. The first gradient sets h without decay."""
        return {"m": np.zeros_like(theta), "h": np.zeros_like(theta), "estimates": np.zeros(1)}

    def apply(self, theta: Float32Array, g: Float32Array, slot: Slot, step: int, lr: float) -> Slot:
        """Write the next theta and moments in place; see `Rule.apply`."""
        slot = require_slot(slot, "m", "h", "estimates")
        m, h, estimates = slot["m"], slot["h"], slot["estimates"]
        weight = self.b1 + (1 - self.b1) * math.exp(-step / self.anneal_steps)
        np.multiply(m, np.float32(self.b1), out=m)
        np.add(m, np.float32(weight) * g, out=m)
        first = estimates[0] == 0
        if first or step % self.hessian_every == 0:
            decay = 0.0 if first else self.b2
            np.multiply(h, np.float32(decay), out=h)
            np.add(h, np.float32((1 - decay) * self.batch_size) * np.square(g), out=h)
            estimates[0] += 1
        mean = float(np.add.reduce(h.reshape(-1).astype(np.float64))) / h.size
        scale = np.maximum(h, np.float32(self.floor * mean))
        np.multiply(scale, np.float32(self.gamma), out=scale)
        np.add(scale, np.float32(self.eps), out=scale)
        np.divide(m, scale, out=scale)
        decay_weights(theta, lr, self.weight_decay)
        np.subtract(theta, np.float32(lr) * scale, out=theta)
        return slot
