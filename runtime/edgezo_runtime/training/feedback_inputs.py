"""The inputs of sites without their mean: what a last token's states have in common tells nothing.

Every prompt ends in the same token, so most of an input x is the same in every row. A gradient
e x' then mostly says how to shift the label logits of all rows, and Adam, which divides by the size
of each element, hardly sees the rest. So of each row of a gradient G the part along the mean input
is taken down to a share: G (I - (1 - share) u u'), u the unit vector of the mean. The matrix is
symmetric and positive, so it turns no gradient uphill.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

SHARE = 0.1
"""What is left along the mean input."""


def mean_inputs(inputs: Mapping[str, Float32]) -> dict[str, Float32]:
    """Means (in,) over the rows of inputs (B, in)."""
    return {name: x.mean(axis=0, dtype=np.float64).astype(np.float32) for name, x in inputs.items()}


def unit_vectors(means: Mapping[str, Float32]) -> dict[str, Float32]:
    """Means with a length of one; zero stays zero."""
    found: dict[str, Float32] = {}
    for name, mean in means.items():
        length = math.sqrt(math.fsum(value * value for value in mean.tolist()))
        found[name] = (mean / np.float32(length)).astype(np.float32) if length else mean
    return found


def lessened(rows: Float32, unit: Float32, share: float = SHARE) -> Float32:
    """Rows (..., in), of gradients or inputs, with a share of their part along a unit vector."""
    part = (1 - share) * (rows.astype(np.float64) @ unit)
    less: Float32 = (rows - part[..., None] * unit).astype(np.float32)
    return less


def input_size(x: Float32, unit: Float32, share: float = SHARE) -> float:
    """Mean over the rows of x (B, in) of the sum of the absolute values of what is left of them."""
    sizes = np.abs(lessened(x, unit, share).astype(np.float64)).sum(axis=1)
    return math.fsum(sizes.tolist()) / len(sizes)
