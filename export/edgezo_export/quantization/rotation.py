"""Block-wise Hadamard rotation of the input of a linear layer.

    y = W x = (W R^T)(R x),   R = blockdiag(H, ..., H),   H H^T = I

A language model's activations have a few channels far larger than the rest, and one scale a row
spends the int8 range on them. Rotating every block of 64 channels spreads an outlier over its
block; the weights take the inverse rotation at export. Exact but for rounding, without
calibration data, at the price of one product with a 64 x 64 matrix.

References:
    Ashkboos et al. 2024, QuaRot, arXiv:2404.00456. Differs: block-wise, beside every linear layer
    instead of folded into the residual stream, so adapters keep the model's own basis.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

# Powers of 4: the entries +-1/sqrt(n) are powers of 2, so the matrix is exact in float32.
_SIZES = (64, 16, 4)


def block_size(width: int) -> int:
    """Channels rotated together for a layer with `width` inputs; 1 when no block divides it."""
    return next((size for size in _SIZES if width % size == 0), 1)


def hadamard(size: int) -> Float32:
    """The orthonormal symmetric Hadamard matrix (size, size) of Sylvester's construction."""
    matrix = np.ones((1, 1), np.float32)
    while matrix.shape[0] < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    scaled: Float32 = (matrix / np.sqrt(np.float32(size))).astype(np.float32)
    return scaled


def rotate_rows(rows: Float32) -> Float32:
    """Rotate the blocks of every row of a (N, K) matrix."""
    size = block_size(rows.shape[1])
    if size == 1:
        return rows
    blocks = rows.reshape(-1, size) @ hadamard(size)
    rotated: Float32 = blocks.reshape(rows.shape)
    return rotated
