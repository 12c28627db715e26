"""Where a pass gets its trainable inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class Params(Protocol):
    """The trainable inputs of a pass."""

    @property
    def private(self) -> bool:
        """Has every sequence copies of its own?"""

    def copies(self, name: str, rows: Int64) -> Float32:
        """Give the copies of a tensor for the sequences `rows` of the batch, which may repeat.

        Returns:
            (P, *shape) float32. P is 1 where all rows share a copy, G with one copy per group, or
            G times the number of sequences, groups outermost. Called from several threads.
        """


class SharedParams:
    """The same tensors for all rows.

    Args:
        values: every trainable input by name, without the leading axis.
    """

    def __init__(self, values: Mapping[str, Float32]) -> None:
        self._values = values

    @property
    def private(self) -> bool:
        """Always False: all rows share the tensors."""
        return False

    def copies(self, name: str, rows: Int64) -> Float32:
        """(1, *shape)."""
        return self._values[name][None]
