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

    def values(self, rows: slice = slice(None)) -> Float32:
        """Compute what the codes of some rows mean, (n, K)."""
        own = GroupCodes(self.codes[rows], self.multipliers[rows], self.scales[rows])
        values: Float32 = own.levels() * own.scales[:, None]
        return values

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


def best_multipliers(scaled: Float32) -> Int8:
    """Choose the multiplier of every group, by the squared error.

    Args:
        scaled: (..., g, N) weights in units of their scale, a column for each row of the matrix.
    Returns:
        (..., N) int8.
    """
    largest = _largest(scaled)
    best = np.zeros(largest.shape, np.float32)
    least = np.full(largest.shape, np.inf, np.float32)
    error = np.empty_like(scaled)
    for end, share in [(LOWEST, share) for share in _SHRUNK] + [(HIGHEST, 1.0)]:
        tried = np.rint(largest * np.float32(share * STEPS / end))
        np.clip(tried, -LEVELS, LEVELS, out=tried)
        _nearest(scaled, tried, error)
        error *= (tried * np.float32(1 / STEPS))[..., None, :]
        np.rint(error, out=error)  # the levels
        np.subtract(scaled, error, out=error)
        squares = np.square(error, out=error).sum(axis=-2)
        better = squares < least
        np.copyto(best, tried, where=better)
        np.copyto(least, squares, where=better)
    return best.astype(np.int8)


def _largest(scaled: Float32) -> Float32:
    """The number of each column with the largest magnitude; of two such, the first one."""
    highest, lowest = scaled.max(axis=-2), scaled.min(axis=-2)
    found: Float32 = np.where(highest > -lowest, highest, lowest)
    for place in zip(*np.nonzero((highest == -lowest) & (highest > 0)), strict=True):
        column = scaled[(*place[:-1], slice(None), place[-1])]
        found[place] = column[np.abs(column).argmax()]
    return found


def nearest_codes(scaled: Float32, multipliers: Float32) -> Float32:
    """Round weights (..., N), in units of the scale, to codes; those of multiplier 0 are 0."""
    codes = np.empty_like(scaled)
    _nearest(scaled[..., None, :], multipliers, codes[..., None, :])
    return codes


def _nearest(scaled: Float32, multipliers: Float32, codes: Float32) -> None:
    """Round weights (..., g, N) to `codes` of the same shape."""
    steps = np.where(multipliers == 0, np.float32(np.inf), multipliers * np.float32(1 / STEPS))
    np.divide(scaled, steps[..., None, :], out=codes)
    np.rint(codes, out=codes)
    np.clip(codes, LOWEST, HIGHEST, out=codes)


_TOGETHER = 1 << 16
"""Weights whose codes are chosen at a time: they and two copies stay in a core's cache."""

_STRIP, _APART = 64, 16
"""Columns that are transposed at a time, and floats between two rows."""


def round_groups(weights: Float32, size: int) -> GroupCodes:
    """Round each weight to the nearest code of its group.

    Args:
        weights: (N, K), finite.
        size: inputs of a group; divides K.
    Memory:
        Two float32 temporaries of the size of `weights`.
    """
    scales = channel_scales(weights)
    rows, width = weights.shape
    scaled = _columns(weights, scales).reshape(-1, size, rows)
    codes = np.empty(scaled.shape, np.int8)
    multipliers = np.empty((width // size, rows), np.int8)
    step = max(1, _TOGETHER // (size * rows))
    for first in range(0, len(scaled), step):
        part = slice(first, first + step)
        own = best_multipliers(scaled[part])
        multipliers[part] = own
        made = scaled[part]
        _nearest(made, own.astype(np.float32), made)
        codes[part] = made
    by_row = np.empty((rows, width), np.int8)
    for first in range(0, width, _STRIP):  # a whole transposed copy takes three times as long
        part = slice(first, first + _STRIP)
        by_row[:, part] = codes.reshape(width, rows)[part].T
    return GroupCodes(by_row, np.ascontiguousarray(multipliers.T), scales)


def _columns(weights: Float32, scales: Float32) -> Float32:
    """Compute (K, N) weights in units of the scales of their rows.

    Rows of a power of 2 would share the few lines of a cache that their columns may lie in.
    """
    rows, width = weights.shape
    apart = np.empty((rows, width + _APART), np.float32)[:, :width]
    np.divide(weights, scales[:, None], out=apart)
    return np.ascontiguousarray(apart.T)


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
