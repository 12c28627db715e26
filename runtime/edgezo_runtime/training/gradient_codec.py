"""Gradients as the journal stores them: 8 bits per element, one scale per tensor.

A gradient cannot be computed from a few recorded losses. The journal stores it, so a replay needs
neither data nor a model. It is rounded before it is used: 580 bytes per block and step for adapters
of rank 1 on SmolLM2's down_proj.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import RunFileError

Float32 = npt.NDArray[np.float32]

_LEVELS = 127
_SCALE_BYTES = 4


class GradientCodec:
    """Packs the gradients of some tensors.

    Args:
        shapes: by the names of the tensors, in the order in which they are packed.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = dict(shapes)

    @property
    def nbytes(self) -> int:
        """Bytes of a packed gradient."""
        return sum(_SCALE_BYTES + math.prod(shape) for shape in self._shapes.values())

    def pack(self, gradient: Mapping[str, Float32]) -> bytes:
        """A gradient as the journal stores it: a float32 scale and int8 multiples per tensor."""
        parts: list[bytes] = []
        for name in self._shapes:
            grad = gradient[name]
            scale = np.float32(np.abs(grad).max()) / np.float32(_LEVELS)
            levels = np.rint(grad / scale) if scale else np.zeros_like(grad)
            parts += [scale.astype("<f4").tobytes(), levels.astype(np.int8).tobytes()]
        return b"".join(parts)

    def unpack(self, data: bytes) -> dict[str, Float32]:
        """The rounded gradient that `pack` wrote.

        Raises:
            RunFileError: the data have another length, or a scale that is not finite.
        """
        if len(data) != self.nbytes:
            raise RunFileError(
                f"a step's gradient has {len(data)} bytes in the journal, expected {self.nbytes}"
            )
        found: dict[str, Float32] = {}
        start = 0
        for name, shape in self._shapes.items():
            size = math.prod(shape)
            scale = np.frombuffer(data, "<f4", 1, start).astype(np.float32)
            if not np.isfinite(scale).all():
                raise RunFileError(f"a step's gradient of '{name}' is not finite")
            levels = np.frombuffer(data, np.int8, size, start + _SCALE_BYTES)
            found[name] = levels.reshape(shape).astype(np.float32) * scale
            start += _SCALE_BYTES + size
        return found
