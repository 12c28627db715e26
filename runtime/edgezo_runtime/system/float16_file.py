"""A file that caches arrays of float16 numbers.

Plain reads leave the file in the page cache, which is not resident memory of the process. Numbers
are rounded whether they are cached or not, so results do not depend on what is in the file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import CacheRangeError
from edgezo_runtime.system.files import open_descriptor

Float16 = npt.NDArray[np.float16]

_LARGEST = float(np.finfo(np.float16).max)


def to_float16(values: npt.NDArray[np.float32]) -> Float16:
    """Round to float16.

    Raises:
        CacheRangeError: a number is beyond float16's range.
    """
    largest = float(np.abs(values).max(initial=0))
    if not largest <= _LARGEST:
        raise CacheRangeError(
            f"a hidden state, key or value of {largest:.3g} does not fit the prefix cache (float16 "
            f"ends at {_LARGEST:.0f}); start another run without `prefix_cache`"
        )
    return values.astype(np.float16)


class Float16File:
    """A cache of entries by number, each of a fixed size; an entry that does not fit is left out.

    Args:
        path: the file, which is made empty. None stores nothing: all that was written is read as
            zeros.
        sizes: (N,) float16 numbers in each entry.
        max_bytes: largest size of the file; None for no limit.
    Raises:
        OSError: the file cannot be made.
    Memory:
        9 bytes per entry.
    """

    def __init__(
        self, path: Path | None, sizes: npt.NDArray[np.int64], max_bytes: int | None = None
    ) -> None:
        self._offsets = np.concatenate(([0], np.cumsum(2 * sizes.astype(np.int64))))
        self._limit = sys.maxsize if max_bytes is None else max_bytes
        self._present = np.zeros(len(sizes), bool)
        self._file = -1
        self._discards = path is None
        if path is not None:
            self._file = open_descriptor(path, os.O_RDWR | os.O_CREAT, follow=False)
            os.ftruncate(self._file, 0)

    def extend(self, sizes: npt.NDArray[np.int64]) -> None:
        """Add entries behind the present ones."""
        ends = self._offsets[-1] + np.cumsum(2 * sizes.astype(np.int64))
        self._offsets = np.concatenate((self._offsets, ends))
        self._present = np.concatenate((self._present, np.zeros(len(sizes), bool)))

    @property
    def size_bytes(self) -> int:
        """Bytes of the file when it holds every entry that fits."""
        return min(int(self._offsets[-1]), self._limit)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, key: int) -> Float16 | None:
        """An entry, or None if it is not in the cache."""
        size = int(self._offsets[key + 1] - self._offsets[key]) // 2
        entry = np.empty(size, np.float16)
        return entry if self.read_into(key, entry) else None

    def read_into(self, key: int, *parts: Float16) -> bool:
        """Fill contiguous arrays in turn with an entry; False if it is not in the cache."""
        if not self._present[key]:
            return False
        if self._discards:
            for part in parts:
                part[...] = 0
            return True
        start, end = int(self._offsets[key]), int(self._offsets[key + 1])
        buffers = [part.view(np.uint8).data for part in parts if part.size]
        return os.preadv(self._file, buffers, start) == end - start

    def write(self, key: int, *parts: Float16) -> None:
        """Cache an entry, given in contiguous parts, if there is room for it."""
        if self._discards:
            self._present[key] = True
            return
        start, end = int(self._offsets[key]), int(self._offsets[key + 1])
        if end <= self._limit and sum(part.nbytes for part in parts) == end - start > 0:
            buffers = [part.view(np.uint8).data for part in parts if part.size]
            try:
                written = os.pwritev(self._file, buffers, start)
            except OSError:  # a full disk: cache no more
                self._limit = 0
                return
            self._present[key] = written == end - start
