"""Directions in a random subspace of each matrix, redrawn every `refresh` steps."""

from __future__ import annotations

import math

import numpy as np

from edgezo_runtime.methods.samplers.frame import Float32Array, Frame
from edgezo_runtime.methods.samplers.matrix_view import matrix_shape, orthonormal
from edgezo_runtime.methods.samplers.refreshed import Refreshed
from edgezo_runtime.noise import derive_seed


class Subspace(Refreshed):
    """z = sqrt(m n) / r * U N V' for an m x n tensor, N (r, r) noise, U and V orthonormal.

    The scale gives z the length of dense noise, E |z|^2 = m n. U and V are redrawn every `refresh`
    steps, seeded by the number of the refresh, so a resumed run needs no stored state. Over many
    refreshes E z z' = I. Tensors without a matrix shape above the rank get dense directions.

    Args:
        subspace_rank: r, at least 1.
        refresh: number of steps between new U and V, at least 1.

    Raises:
        UsageError: a setting is below 1.

    Memory:
        r (m + n) numbers per tensor.

    References:
        Yu et al. 2024, arXiv:2410.08989 (SubZero), Algorithms 1 and 2. Differs: U and V are Haar
        (signs fixed) and not part of the state; vectors are reshaped too.
    """

    def __init__(self, subspace_rank: int = 8, refresh: int = 2000) -> None:
        super().__init__(subspace_rank, refresh)

    def _make(self, name: str, theta: Float32Array, seed: int) -> Frame:
        matrix = matrix_shape(theta.shape, self._rank)
        if matrix is None:
            return Frame(theta.shape)
        left, right = (
            orthonormal(derive_seed(seed, side), name, size, self._rank)
            for side, size in zip(("left", "right"), matrix, strict=True)
        )
        return _Spanned(theta.shape, left, right)


class _Spanned(Frame):
    def __init__(self, shape: tuple[int, ...], left: Float32Array, right: Float32Array) -> None:
        super().__init__(shape)
        rank = left.shape[1]
        self.coords = (rank, rank)
        self._left = left * (math.sqrt(len(left) * len(right)) / rank)
        self._right = right

    def lift(self, coords: Float32Array) -> Float32Array:
        return product(self._left, coords, self._right).reshape(-1, *self.shape)


def product(left: Float32Array, middle: Float32Array, right: Float32Array) -> Float32Array:
    """Return left @ middle[i] @ right', summed term by term in the same order on every machine.

    Args:
        left: (m, r).
        middle: (R, r, s).
        right: (n, s).

    Returns:
        (R, m, n) float32.
    """
    rows = sum_of_products(left[None, :, :, None], middle[:, None, :, :], axis=2)  # (R, m, s)
    return sum_of_products(rows[:, :, None, :], right[None, None, :, :], axis=3)


def sum_of_products(a: Float32Array, b: Float32Array, axis: int) -> Float32Array:
    """Sum a * b over an axis, term by term; the order of sums in BLAS depends on the machine."""
    count = a.shape[axis]
    total = np.multiply(a.take(0, axis), b.take(0, axis), dtype=np.float32)
    for i in range(1, count):
        total = total + np.multiply(a.take(i, axis), b.take(i, axis), dtype=np.float32)
    return np.asarray(total, np.float32)
