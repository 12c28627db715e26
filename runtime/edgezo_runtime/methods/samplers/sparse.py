"""Directions over a part of the coordinates of a tensor."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.samplers.frame import Float32Array, Frame, Slot, Stateless
from edgezo_runtime.noise import derive_seed, noise

Mask = Literal["small", "large", "random"]


class Sparse(Stateless):
    """z is the noise where a mask is 1, and 0 elsewhere.

    The probes and the update use the mask of theta before the step; perturbed weights would give
    another mask. Ties in magnitude are broken at random; a tensor of zeros has nothing but ties.

    Args:
        sparsity: share of the coordinates that stay unperturbed, 0 <= sparsity < 1.
        mask: the perturbed coordinates: "small" magnitudes (Sparse-MeZO), "large" magnitudes, or
            "random" coordinates, redrawn in every step (ZO-Bench).

    Raises:
        UsageError: a setting is out of range.

    Memory:
        The mask of each tensor.

    References:
        Liu et al. 2024, arXiv:2402.15751 (Sparse-MeZO); Zhang et al. 2024, arXiv:2402.11592
        (gradient sparsity). `sparsity` has the meaning of the first paper.
    """

    def __init__(self, sparsity: float = 0.75, mask: Mask = "small") -> None:
        if not 0 <= sparsity < 1:
            raise UsageError(f"`sparsity` {sparsity}: must be at least 0 and below 1")
        if mask not in ("small", "large", "random"):
            raise UsageError(f"`mask` {mask}: expected small, large or random")
        self._sparsity = sparsity
        self._mask = mask

    def frame(self, name: str, theta: Float32Array, slot: Slot, step: int, seed: int) -> Frame:
        """Return the coordinates under the mask; see `Sampler.frame`."""
        order = noise(derive_seed(seed, "mask", step), name, (theta.size,), kind="gaussian")
        if self._mask == "random":
            ranked = np.argsort(order, kind="stable")
        else:
            size = np.abs(theta.reshape(-1))
            ranked = np.lexsort((order, size if self._mask == "small" else -size))
        moving = np.zeros(theta.size, np.float32)
        moving[ranked[: max(1, math.ceil((1 - self._sparsity) * theta.size))]] = 1
        return _Masked(moving.reshape(theta.shape))


class _Masked(Frame):
    def __init__(self, mask: Float32Array) -> None:
        super().__init__(mask.shape)
        self._mask = mask

    def lift(self, coords: Float32Array) -> Float32Array:
        return coords * self._mask
