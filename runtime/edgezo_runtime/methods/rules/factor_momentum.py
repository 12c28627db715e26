"""Momentum in the coordinates of low-rank directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgezo_runtime.methods.rules.rule import Float32Array, Slot, require_decay, require_slot
from edgezo_runtime.methods.samplers.frame import Frame
from edgezo_runtime.methods.samplers.low_rank import LazyFactor
from edgezo_runtime.methods.samplers.subspace import sum_of_products


@dataclass(frozen=True)
class FactorMomentum:
    """N <- b1 N + (1 - b1) G;  theta <- theta - lr lift(N), G and N (m, r) in the step's frame.

    When the frame's V changes, N becomes N V_old' V_new / n. So N represents the same matrix as
    before, as far as the new V can. Vectors have no low-rank frame; their momentum uses the
    tensor's own coordinates.

    Attributes:
        b1: decay, 0 <= b1 < 1.

    Raises:
        UsageError: b1 is out of range.

    Memory:
        r (m + n) numbers per tensor.

    References:
        Chen et al. 2024, arXiv:2410.07698 (LOZO-M), Algorithm 2.
    """

    b1: float = 0.9

    def __post_init__(self) -> None:
        require_decay("b1", self.b1)

    def init_in(self, frame: Frame) -> Slot:
        """Start with N = 0; see `FrameRule.init_in`."""
        slot = {"n": np.zeros(frame.coords, np.float32)}
        if isinstance(frame, LazyFactor):
            slot["right"] = frame.right.copy()
        return slot

    def apply_in(
        self, frame: Frame, theta: Float32Array, g: Float32Array, slot: Slot, step: int, lr: float
    ) -> Slot:
        """Write the next theta and N in place; see `FrameRule.apply_in`."""
        if isinstance(frame, LazyFactor):
            slot = require_slot(slot, "n", "right")
            if not np.array_equal(slot["right"], frame.right):
                slot["n"][...] = _carried(slot["n"], slot["right"], frame.right)
                slot["right"][...] = frame.right
        else:
            slot = require_slot(slot, "n")
        n = slot["n"]
        np.multiply(n, np.float32(self.b1), out=n)
        np.add(n, np.float32(1 - self.b1) * g, out=n)
        np.subtract(theta, np.float32(lr) * frame.lift(n[None])[0], out=theta)
        return slot


def _carried(n: Float32Array, old: Float32Array, new: Float32Array) -> Float32Array:
    """N V_old' V_new / n: (m, r)."""
    overlap = sum_of_products(old[:, :, None], new[:, None, :], axis=0) / np.float32(len(old))
    return sum_of_products(n[:, :, None], overlap[None], axis=1)
