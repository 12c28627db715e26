"""How far the reading of data files is, and so about how many rows they have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path


class Place:
    """The place up to which files that are read one behind the other have been read.

    Args:
        files: the files.
        limit: number of rows after which the reading stops; None for no limit.
    """

    def __init__(self, files: Sequence[Path], limit: int | None = None) -> None:
        self._sizes = [_size(file) for file in files]
        self._limit = limit
        self._before, self._at = 0, -1
        self._file: FileIO | None = None
        self._rows: int | None = None

    def enter(self, before: int, file: FileIO) -> None:
        """Note that the next file is read.

        Args:
            before: rows of the files before it.
            file: as it is stored, not unpacked.
        """
        self._before, self._at, self._file, self._rows = before, self._at + 1, file, None

    def know(self, rows: int) -> None:
        """Note how many rows the file has that is read."""
        self._rows = rows

    def expected(self, count: int) -> int:
        """About how many rows there are in all, by the bytes that the rows so far had.

        Args:
            count: rows that have been read.
        Returns:
            The number; 0 if nothing is known yet.
        """
        total = sum(self._sizes)
        if not (count and total and self._file is not None and 0 <= self._at < len(self._sizes)):
            return 0
        done = sum(self._sizes[: self._at]) + self._sizes[self._at] * self._share(count)
        found = max(count, round(count * total / done)) if done else 0
        return found if self._limit is None else min(self._limit, found or self._limit)

    def _share(self, count: int) -> float:
        """The share of the file that has been read."""
        assert self._file is not None
        if self._rows is not None:
            return (count - self._before) / max(1, self._rows)
        if self._file.closed:
            return 1.0
        return self._file.tell() / max(1, self._sizes[self._at])


def _size(file: Path) -> int:
    """Bytes of a file; 0 if that is not known: whoever reads it will say why."""
    try:
        return os.stat(file).st_size
    except OSError:
        return 0
