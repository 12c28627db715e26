"""Rounding that corrects later weights for the errors of earlier ones.

The output error of a linear layer is (w - q)' H (w - q) for each output channel, with H the sum of
x x' over calibration rows. Inputs are rounded one after the other. The error of each moves the
weights of the inputs that are not rounded yet to where the output error is smallest:

    w_j -= (w_i - q_i) / U_ii * U_ij   for j > i,   U'U = H^-1,  U upper triangular

H is held for parts of at most `PART` inputs: errors are corrected inside a part. That keeps the
memory and the time of wide layers small.

References:
    Frantar et al. 2022, GPTQ, arXiv:2210.17323. Differs: levels are those of `group_codes`, whose
    rounding to int8 is corrected as well; inputs are rotated; H in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_export.quantization.group_codes import (
    STEPS,
    GroupCodes,
    best_multipliers,
    channel_scales,
    nearest_codes,
)

PART = 2048
"""Inputs among which errors are corrected; a multiple of every size of a group."""

DAMPING = 0.01
"""Added to the diagonal of H, as a share of its mean: few rows leave H singular."""

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Factor:
    """U of the inputs start..stop of a layer, (stop - start, stop - start) float32."""

    start: int
    stop: int
    upper: Float32


class Moments:
    """The sum of x x' over rows, for parts of the inputs.

    Args:
        width: inputs of the layer.
        part: inputs of a part.
    """

    def __init__(self, width: int, part: int = PART) -> None:
        self._starts = range(0, width, part)
        sizes = [min(part, width - start) for start in self._starts]
        self._sums = [np.zeros((size, size), np.float32) for size in sizes]

    def add(self, rows: Float32) -> None:
        """Add rows (T, K)."""
        for start, total in zip(self._starts, self._sums, strict=True):
            part = rows[:, start : start + len(total)]
            total += part.T @ part

    def factors(self) -> list[Factor]:
        """Factorize what was added.

        Memory:
            Three float64 matrices of a part.
        """
        found = []
        for start, total in zip(self._starts, self._sums, strict=True):
            found.append(Factor(start, start + len(total), _upper(total)))
        return found


def _upper(moments: Float32) -> Float32:
    matrix = moments.astype(np.float64)
    diagonal = np.einsum("ii->i", matrix)  # a view
    diagonal[diagonal == 0] = 1  # an input that is always 0
    diagonal += DAMPING * diagonal.mean()
    upper: Float32 = np.linalg.cholesky(np.linalg.inv(matrix)).T.astype(np.float32)
    return upper


def compensated_groups(weights: Float32, size: int, factors: Sequence[Factor]) -> GroupCodes:
    """Round weights to codes, later ones corrected for the errors of earlier ones.

    Args:
        weights: (N, K), finite, rotated as the rows that the factors are made of.
        size: inputs of a group; divides K.
        factors: they cover the inputs in order.
    Memory:
        Three float32 temporaries of the size of `weights`.
    """
    scales = channel_scales(weights)
    columns = np.ascontiguousarray((weights / scales[:, None]).T)  # (K, N), in units of the scale
    codes = np.empty(columns.shape, np.int8)
    multipliers = np.empty((len(columns) // size, len(scales)), np.int8)
    for factor in factors:
        part = columns[factor.start : factor.stop]
        for first in range(0, len(part), size):
            last = first + size
            index = (factor.start + first) // size
            multipliers[index] = best_multipliers(part[first:last])
            own = multipliers[index].astype(np.float32)
            errors = np.empty((size, len(scales)), np.float32)
            for row in range(first, last):
                code = nearest_codes(part[row], own)
                codes[factor.start + row] = code
                level = np.rint(code * own * np.float32(1 / STEPS))
                error = (part[row] - level) / factor.upper[row, row]
                errors[row - first] = error
                part[row + 1 : last] -= factor.upper[row, row + 1 : last, None] * error
            part[last:] -= factor.upper[first:last, last:].T @ errors
    return GroupCodes(np.ascontiguousarray(codes.T), np.ascontiguousarray(multipliers.T), scales)
