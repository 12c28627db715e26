"""Matrix shapes of tensors, and orthonormal columns with the same bits on every machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgezo_runtime.noise import noise

Float32Array = npt.NDArray[np.float32]


def matrix_shape(shape: Sequence[int], rank: int) -> tuple[int, int] | None:
    """Return the matrix shape in which a tensor has directions of low rank.

    Args:
        shape: shape of the tensor.
        rank: rank of the directions.

    Returns:
        The shape itself if it has two dimensions above `rank`, else the most square shape with as
        many elements; None if that one has a dimension not above `rank`.

    References:
        Yu et al. 2024, arXiv:2410.08989 (SubZero), section 3.3 (reshaping).
    """
    if len(shape) == 2 and min(shape) > rank:
        return shape[0], shape[1]
    size = math.prod(shape)
    narrow = next((n for n in range(math.isqrt(size), 0, -1) if size % n == 0), 1)
    return (size // narrow, narrow) if narrow > rank else None


def orthonormal(seed: int, name: str, rows: int, rank: int) -> Float32Array:
    """Return random orthonormal columns, uniform over all frames (Haar).

    Gram-Schmidt runs twice over Gaussian columns; the diagonal of R is positive. All sums run over
    contiguous float64 arrays, in an order that numpy fixes. LAPACK libraries round differently.

    Args:
        seed: identifies the columns, with `name`.
        name: the tensor's name.
        rows: length of a column.
        rank: number of columns, at most `rows`.

    Returns:
        (rows, rank) float32.
    """
    drawn = noise(seed, name, (rank, rows), kind="gaussian").astype(np.float64)
    for index, column in enumerate(drawn):
        for _ in range(2):
            for other in drawn[:index]:
                column -= np.add.reduce(column * other) * other
        column /= math.sqrt(np.add.reduce(column * column))
    return np.ascontiguousarray(drawn.T, dtype=np.float32)
