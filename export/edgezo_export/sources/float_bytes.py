"""Numbers as .safetensors files store them; bfloat16 is the upper half of a float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes per number, by the name of the type."""


def float_bytes(values: npt.NDArray[np.float32], dtype: str) -> bytes:
    """Round numbers to a type, ties to even.

    Args:
        values: float32.
        dtype: a key of `FLOATS`.
    Raises:
        OverflowError: a finite number is beyond the range of the type.
    """
    if dtype == "BF16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        finite = np.isfinite(values)
        halves = np.where(finite, (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16, bits >> 16)
        stored = halves.astype("<u2")
        if (finite & ((stored & 0x7F80) == 0x7F80)).any():
            raise OverflowError(f"{np.abs(values[finite]).max():.3g} is beyond bfloat16")
        return stored.tobytes()
    with np.errstate(over="ignore"):
        rounded = values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
    lost = np.isfinite(values) & ~np.isfinite(rounded)
    if lost.any():
        raise OverflowError(f"{np.abs(values[lost]).max():.3g} is beyond float16")
    return rounded.tobytes()
