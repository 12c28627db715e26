"""Codes over the probes of a pass, which quantize their mean and their differences separately."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import UsageError

Float32Array = npt.NDArray[np.float32]


def code_matrices(scales: Sequence[float]) -> tuple[Float32Array, Float32Array]:
    """Choose the code for probes at theta + scales[g] z.

    A finite difference is small against the rounding of int8 activations. A linear layer is
    applied to coded rows, sum_g code[k, g] x_g, each quantized with a scale of its own, and its
    results are decoded the same way. The first coded row carries what the probes share, and its
    rounding error is common to all of them; the others carry differences at full relative
    precision.

        one probe              code = (1)
        (s, -s)                code = centre (x0 + x1) / 2 and half difference (x0 - x1) / 2
        (0, s1, s2, ...)       code = x0 and the differences x_g - x0
        else                   code = the mean and, for g > 0, the differences x_g - mean

    Args:
        scales: the scale of every probe of the pass, G of them.

    Returns:
        (code, decode), both (G, G) float32. decode @ code is the identity, to the last bit except
        in the last case when G is not a power of two.

    Raises:
        UsageError: there are no scales, or one is not finite.
    """
    groups = len(scales)
    if not groups or not all(math.isfinite(scale) for scale in scales):
        raise UsageError(f"scales must be finite numbers, at least one, not {list(scales)}")
    if groups == 1:
        code, decode = _identity(1), _identity(1)
    elif groups == 2 and scales[0] == -scales[1] != 0:
        decode = np.array([[1, 1], [1, -1]], np.float32)
        code = decode * np.float32(0.5)
    elif scales[0] == 0:
        code, decode = _identity(groups), _identity(groups)
        code[1:, 0], decode[1:, 0] = -1, 1
    else:
        code, decode = _identity(groups), _identity(groups)
        code -= np.float32(1 / groups)
        code[0] = 1 / groups
        decode[:, 0] = 1
        decode[0, 1:] = -1  # the differences from the mean, that of x0 included, sum to zero
    return code.astype(np.float32), decode.astype(np.float32)


def _identity(size: int) -> Float32Array:
    return np.eye(size, dtype=np.float32)
