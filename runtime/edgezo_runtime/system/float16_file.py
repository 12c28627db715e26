"""Records of float16 numbers in one file, read with plain reads.

What is read so is page cache, not resident memory of the process. Numbers are rounded the same way
when they are kept and when they are found, so results do not depend on what is in the file.
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
            f"ends at {_LARGEST:.0f}); begin another run with --no-prefix-cache"
        )
    return values.astype(np.float16)


class Float16File:
    """Records by number, each of a fixed size; a cache: a record that does not fit is not kept.

    Args:
        path: the file; made new. None forgets the numbers: what was written is read as zeros.
        sizes: (N,) numbers in each record.
        max_bytes: no more than so much of the file is used; None for no limit.
    Raises:
        OSError: the file cannot be made.
    Memory:
        9 bytes a record.
    """

    def __init__(
        self, path: Path | None, sizes: npt.NDArray[np.int64], max_bytes: int | None = None
    ) -> None:
        self._offsets = np.concatenate(([0], np.cumsum(2 * sizes.astype(np.int64))))
        self._limit = sys.maxsize if max_bytes is None else max_bytes
        self._present = np.zeros(len(sizes), bool)
        self._file = -1
        self._forgets = path is None
        if path is not None:
            self._file = open_descriptor(path, os.O_RDWR | os.O_CREAT, follow=False)
            os.ftruncate(self._file, 0)

    def extend(self, sizes: npt.NDArray[np.int64]) -> None:
        """Make room for more records behind those there are."""
        ends = self._offsets[-1] + np.cumsum(2 * sizes.astype(np.int64))
        self._offsets = np.concatenate((self._offsets, ends))
        self._present = np.concatenate((self._present, np.zeros(len(sizes), bool)))

    @property
    def size_bytes(self) -> int:
        """Bytes of the file when every record that fits is kept."""
        return min(int(self._offsets[-1]), self._limit)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, key: int) -> Float16 | None:
        """A record, or None if it was not kept."""
        size = int(self._offsets[key + 1] - self._offsets[key]) // 2
        record = np.empty(size, np.float16)
        return record if self.read_into(key, record) else None

    def read_into(self, key: int, *parts: Float16) -> bool:
        """Fill contiguous arrays, one after the other, with a record; False if it was not kept."""
        if not self._present[key]:
            return False
        if self._forgets:
            for part in parts:
                part[...] = 0
            return True
        start, end = int(self._offsets[key]), int(self._offsets[key + 1])
        buffers = [part.view(np.uint8).data for part in parts if part.size]
        return os.preadv(self._file, buffers, start) == end - start

    def write(self, key: int, *parts: Float16) -> None:
        """Keep a record, given in contiguous parts, if there is room for it."""
        if self._forgets:
            self._present[key] = True
            return
        start, end = int(self._offsets[key]), int(self._offsets[key + 1])
        if end <= self._limit and sum(part.nbytes for part in parts) == end - start > 0:
            buffers = [part.view(np.uint8).data for part in parts if part.size]
            try:
                written = os.pwritev(self._file, buffers, start)
            except OSError:  # a full disk: go on without keeping more
                self._limit = 0
                return
            self._present[key] = written == end - start
