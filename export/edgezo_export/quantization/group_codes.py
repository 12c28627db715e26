"""4-bit weights in groups of input channels, and the 8-bit levels that products compute with.

    level = round(code * multiplier / 8),   w ~ scale * level

A code has 4 bits. A group of neighbouring inputs of one output channel has an 8-bit multiplier of
its own; an output channel has one float32 scale. The levels fit int8, so a matrix of codes is
multiplied as an int8 matrix with one scale per output is. What other runtimes call the scale of a
group is scale * multiplier / 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_export.quantization.quantize import LEVELS

LOWEST, HIGHEST = -8, 7
"""The smallest and the largest code."""

CODE_ZERO = 8
"""What is stored for code 0."""

STEPS = 8
"""Multipliers count eighths of a level: 127 with code -8 is level -127."""

GROUP_SIZES = (128, 64, 32, 16)
"""Sizes a group can have."""

_SHRUNK = (1.0, 0.92, 0.84, 0.76)
"""Ranges of a group that are tried, as shares of its largest weight."""

Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class GroupCodes:
    """Rows of a matrix in 4 bits.

    Attributes:
        codes: (N, K) int8 in -8..7.
        multipliers: (N, G) int8, one for each group of K / G inputs.
        scales: (N,) float32 above zero.
    """

    codes: Int8
    multipliers: Int8
    scales: Float32

    def levels(self) -> Int8:
        """Compute the (N, K) levels, -127..127."""
        size = self.codes.shape[1] // self.multipliers.shape[1]
        return levels_of(self.codes, np.repeat(self.multipliers, size, axis=1))

    def packed(self) -> npt.NDArray[np.uint8]:
        """Store two codes per byte, (N, K / 2): even inputs in the low half, code 0 as 8.

        MatMulNBits of onnxruntime reads these bytes as they are.
        """
        stored = (self.codes + np.int8(CODE_ZERO)).view(np.uint8)
        packed: npt.NDArray[np.uint8] = stored[:, 0::2] | (stored[:, 1::2] << np.uint8(4))
        return packed


def group_size_of(width: int, wanted: int) -> int | None:
    """The largest size of a group, up to the one that is wanted, that divides `width`."""
    sizes = (size for size in GROUP_SIZES if size <= wanted and width % size == 0)
    return next(sizes, None)


def levels_of(codes: npt.NDArray[np.generic], multipliers: npt.NDArray[np.generic]) -> Int8:
    """Compute levels; halves are rounded to even, as the kernels do."""
    product = codes.astype(np.float32) * multipliers.astype(np.float32)
    product *= np.float32(1 / STEPS)
    np.rint(product, out=product)
    levels: Int8 = product.astype(np.int8)
    return levels


def channel_scales(weights: Float32) -> Float32:
    """Compute the (N,) scales of the rows of a (N, K) matrix."""
    peak = np.abs(weights).max(axis=1)
    scales = np.where(peak > 0, peak / np.float32(LEVELS), np.float32(1)).astype(np.float32)
    np.maximum(scales, np.finfo(np.float32).tiny, out=scales)
    return scales


def best_multipliers(group: Float32, scales: Float32) -> Int8:
    """Choose the multipliers of one group of every row, by the squared error.

    Args:
        group: (g, N) weights, a column for each row of the matrix.
        scales: (N,) scales of the rows.
    Returns:
        (N,) int8.
    """
    scaled = group / scales
    largest = scaled[np.abs(scaled).argmax(axis=0), np.arange(scaled.shape[1])]
    best = np.zeros(len(scales), np.int8)
    least = np.full(len(scales), np.inf, np.float32)
    for end, share in [(LOWEST, share) for share in _SHRUNK] + [(HIGHEST, 1.0)]:
        wanted = np.rint(largest * np.float32(share * STEPS / end))
        tried = np.clip(wanted, -LEVELS, LEVELS).astype(np.float32)
        error = scaled - levels_of(nearest_codes(scaled, tried), tried)
        squares = np.square(error, out=error).sum(axis=0)
        better = squares < least
        best[better] = tried[better].astype(np.int8)
        least[better] = squares[better]
    return best


def nearest_codes(scaled: Float32, multipliers: Float32) -> Float32:
    """Round weights, in units of the scale, to codes; those of multiplier 0 are 0."""
    steps = np.where(multipliers == 0, np.float32(np.inf), multipliers * np.float32(1 / STEPS))
    codes: Float32 = (scaled / steps).astype(np.float32, copy=False)
    np.rint(codes, out=codes)
    np.clip(codes, LOWEST, HIGHEST, out=codes)
    return codes


def round_groups(weights: Float32, size: int) -> GroupCodes:
    """Round each weight to the nearest code of its group.

    Args:
        weights: (N, K), finite.
        size: inputs of a group; divides K.
    Memory:
        Four float32 temporaries of the size of `weights`.
    """
    scales = channel_scales(weights)
    columns = np.ascontiguousarray(weights.T)  # (K, N)
    codes = np.empty(columns.shape, np.int8)
    multipliers = np.empty((len(columns) // size, len(scales)), np.int8)
    for index in range(len(multipliers)):
        part = slice(index * size, (index + 1) * size)
        multipliers[index] = best_multipliers(columns[part], scales)
        own = multipliers[index].astype(np.float32)
        codes[part] = nearest_codes(columns[part] / scales, own).astype(np.int8)
    return GroupCodes(np.ascontiguousarray(codes.T), np.ascontiguousarray(multipliers.T), scales)


def round_groups_8bit(weights: Float32, size: int) -> tuple[npt.NDArray[np.uint8], Float32]:
    """Round each weight to 8 bits with one scale for a group of inputs.

    Args:
        weights: (N, K), finite.
        size: inputs of a group; divides K.
    Returns:
        (N, K) uint8 with zero point 128, and (N, G) float32 scales above zero.
    """
    rows, width = weights.shape
    groups = weights.reshape(rows, width // size, size)
    peak = np.abs(groups).max(axis=2)
    scales = np.where(peak > 0, peak / np.float32(LEVELS), np.float32(1)).astype(np.float32)
    np.maximum(scales, np.finfo(np.float32).tiny, out=scales)
    codes = groups / scales[:, :, None]
    np.rint(codes, out=codes)
    np.clip(codes, -LEVELS, LEVELS, out=codes)
    codes += np.float32(128)
    return codes.astype(np.uint8).reshape(rows, width), scales
