"""Directions of low rank with one factor fixed for several steps."""

from __future__ import annotations

import math

import numpy as np

from edgezo_runtime.methods.samplers.frame import Float32Array, Frame
from edgezo_runtime.methods.samplers.matrix_view import matrix_shape
from edgezo_runtime.methods.samplers.refreshed import Refreshed
from edgezo_runtime.methods.samplers.subspace import sum_of_products
from edgezo_runtime.noise import derive_seed, noise


class LowRank(Refreshed):
    """z = N V' / sqrt(r) for an m x n tensor, N (m, r) noise of the step, V (n, r) Gaussian.

    V is redrawn every `refresh` steps, seeded by the number of the refresh. The factor 1 / sqrt(r)
    gives every element of z variance one. The published code leaves 1/r out of its estimate; its
    learning rate makes up for it.

    Args:
        subspace_rank: r, at least 1.
        refresh: steps between new V, at least 1.

    Raises:
        UsageError: a setting is below 1.

    Memory:
        r n numbers per tensor.

    References:
        Chen et al. 2024, arXiv:2410.07698 (LOZO), Algorithm 1. In steps that draw V, the
        published code updates along other directions than it evaluates; here both come from one
        frame.
    """

    def __init__(self, subspace_rank: int = 2, refresh: int = 50) -> None:
        super().__init__(subspace_rank, refresh)

    def _make(self, name: str, theta: Float32Array, seed: int) -> Frame:
        matrix = matrix_shape(theta.shape, self._rank)
        if matrix is None:
            return Frame(theta.shape)
        rows, columns = matrix
        right = noise(derive_seed(seed, "right"), name, (columns, self._rank), kind="gaussian")
        return LazyFactor(theta.shape, rows, right)


class LazyFactor(Frame):
    """Maps coordinates N (m, r) to N V' / sqrt(r).

    Args:
        shape: shape of the tensor.
        rows: m.
        right: V (n, r).

    Attributes:
        right: V.
    """

    def __init__(self, shape: tuple[int, ...], rows: int, right: Float32Array) -> None:
        super().__init__(shape)
        self.right = right
        self.coords = (rows, right.shape[1])
        self._scaled = right * np.float32(1 / math.sqrt(right.shape[1]))

    def lift(self, coords: Float32Array) -> Float32Array:
        """Return N V' / sqrt(r); see `Frame.lift`."""
        lifted = sum_of_products(coords[:, :, None, :], self._scaled[None, None, :, :], axis=3)
        return lifted.reshape(-1, *self.shape)
