"""Hidden states at the entry of the first active block, kept on disk between steps.

While the blocks before the first perturbed one do not change, neither do their outputs. They are
stored as float16 in one file and read with plain reads, so they are page cache, not resident
memory. States are rounded the same way when they are computed and when they are found, so a run's
bits do not depend on what is in the cache.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import DivergedError

Float32 = npt.NDArray[np.float32]

_LARGEST = float(np.finfo(np.float16).max)


class PrefixCache:
    """States of the sequences of one data set.

    Args:
        path: the file; made new.
        lengths: (N,) tokens of each sequence, by its key 0 to N - 1.
        hidden_size: H.
        max_bytes: no more than so much of the file is used; None for no limit.
    Raises:
        OSError: the file cannot be made.
    Memory:
        9 bytes a sequence.
    """

    def __init__(
        self,
        path: Path,
        lengths: npt.NDArray[np.integer],
        hidden_size: int,
        max_bytes: int | None = None,
    ) -> None:
        self._row_bytes = 2 * hidden_size
        self._hidden_size = hidden_size
        self._lengths = lengths.astype(np.int64)
        self._offsets = np.concatenate(([0], np.cumsum(self._lengths))) * self._row_bytes
        self._limit = int(self._offsets[-1]) if max_bytes is None else max_bytes
        self._present = np.zeros(len(lengths), bool)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)

    @property
    def size_bytes(self) -> int:
        """Bytes of the file when every sequence that fits is kept."""
        return min(int(self._offsets[-1]), self._limit)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(
        self, keys: Sequence[int], lengths: npt.NDArray[np.int64], tokens: int
    ) -> Float32 | None:
        """States (len(keys), tokens, H) float32, zero behind a sequence's end; None if one is
        missing."""
        if not self._present[list(keys)].all():
            return None
        states = np.zeros((len(keys), tokens, self._hidden_size), np.float32)
        for row, key in enumerate(keys):
            size = int(self._lengths[key]) * self._row_bytes
            content = os.pread(self._file, size, int(self._offsets[key]))
            if len(content) != size:
                return None
            kept = np.frombuffer(content, np.float16).reshape(-1, self._hidden_size)
            states[row, : len(kept)] = kept
        return states

    def write(
        self, keys: Sequence[int], lengths: npt.NDArray[np.int64], states: Float32
    ) -> Float32:
        """Keep states (len(keys), S, H) and return them as a later read would give them.

        Raises:
            DivergedError: a state is beyond float16's range.
        """
        result = np.zeros_like(states)
        for row, key in enumerate(keys):
            length = int(lengths[row])
            own = states[row, :length]  # what the model makes of padding means nothing
            largest = float(np.abs(own).max(initial=0))
            if not largest <= _LARGEST:
                raise DivergedError(
                    f"a hidden state of {largest:.3g} does not fit the prefix cache (float16 ends "
                    f"at {_LARGEST:.0f}); run again with --no-prefix-cache"
                )
            rounded = own.astype(np.float16)
            result[row, :length] = rounded
            end = int(self._offsets[key + 1])
            if end <= self._limit and length == self._lengths[key]:
                written = os.pwrite(self._file, rounded.tobytes(), int(self._offsets[key]))
                self._present[key] = written == rounded.nbytes
        return result
