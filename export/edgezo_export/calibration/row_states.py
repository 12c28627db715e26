"""The hidden states of calibration rows at the entry of a block, in a file.

32 rows of 512 tokens take 270 MB in a model of 8 billion parameters, beside a block's weights. A
row is read when it goes through the block, and a file that is read takes no memory of the process.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


class RowStates:
    """States of rows, (S, H) float32 each, one behind the other.

    Args:
        path: the file; `write` makes it.
        shape: S and H.
    """

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self._path = path
        self._shape = shape
        self._bytes = 4 * shape[0] * shape[1]

    def read(self, row: int) -> Float32:
        """Read a row, (1, S, H).

        Raises:
            ValueError: the file ends before it.
        """
        count = self._bytes // 4
        found = np.fromfile(self._path, np.float32, count, offset=row * self._bytes)
        return found.reshape(1, *self._shape)

    def write(self, row: int, states: Float32) -> None:
        """Write a row, (1, S, H), over what was there; the first row begins a new file."""
        with self._path.open("r+b" if row else "wb") as file:
            file.seek(row * self._bytes)
            file.write(np.ascontiguousarray(states, np.float32).data)
