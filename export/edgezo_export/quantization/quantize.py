"""Symmetric 8-bit quantization of weight rows.

    q = round(w / s),  s = max|w| / 127,  w ~ s q

One scale a row: an output channel of a linear layer, a token of an embedding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import EdgezoError

LEVELS = 127  # -128 is not used: the grid stays symmetric
ZERO_POINT = 128  # of the unsigned form

Float32 = npt.NDArray[np.float32]


class NonFiniteWeightError(EdgezoError, ValueError):
    """A weight is NaN or infinite."""


def quantize_rows(weights: Float32) -> tuple[npt.NDArray[np.int8], Float32]:
    """Quantize each row to int8 with its own scale.

    The range is the row's largest magnitude. Clipping it to .95, .9, .85 or .8 of that where the
    squared error falls was measured: never better on SmolLM2-135M (one row in 2,000) nor on
    Gaussian or Student-t rows up to 2,048 wide, and 3 % of the squared error at 8,192. Not worth
    five times the work.

    Args:
        weights: (N, K) matrix.
    Returns:
        (N, K) int8 in -127..127 and (N,) float32 scales above zero; a row of zeros has scale 1.
    Raises:
        NonFiniteWeightError: a weight is NaN or infinite.
    Memory:
        Two float32 temporaries of the size of `weights`.
    """
    peak = np.abs(weights).max(axis=1)  # (N,)
    if not np.isfinite(peak).all():
        row = int(np.flatnonzero(~np.isfinite(peak))[0])
        raise NonFiniteWeightError(f"row {row} has a weight that is not finite")
    scales = np.where(peak > 0, peak / np.float32(LEVELS), np.float32(1)).astype(np.float32)
    # A peak below 127 times the smallest float32 would give scale 0.
    np.maximum(scales, np.finfo(np.float32).tiny, out=scales)
    scaled = weights / scales[:, None]
    np.rint(scaled, out=scaled)
    np.clip(scaled, -LEVELS, LEVELS, out=scaled)
    return scaled.astype(np.int8), scales


def count_not_finite(values: Float32) -> int:
    """Count the numbers that are NaN or infinite."""
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(values.sum()):
            return 0
    return int((~np.isfinite(values)).sum())


def to_unsigned(quantized: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """The same values as uint8 with zero point 128."""
    return quantized.view(np.uint8) ^ np.uint8(ZERO_POINT)
