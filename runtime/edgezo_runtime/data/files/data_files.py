"""The files of one split: one, or several that are read one behind the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgezo_runtime.data.files.file_formats import read_file
from edgezo_runtime.data.files.place import Place
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.errors import DataError, UsageError
from edgezo_runtime.system.files import sha256_file


@dataclass(frozen=True, slots=True)
class DataFiles:
    """Files whose rows belong together.

    Attributes:
        files: in their order; at least one.
        path: the only file, the folder of several, or words that name them.
    """

    files: tuple[Path, ...]
    path: Path

    @classmethod
    def of(cls, *files: Path) -> DataFiles:
        """Some files, under the name of the first one."""
        first, more = files[0], len(files) - 1
        return cls(files, Path(f"{first} and {more} more") if more else first)

    @classmethod
    def together(cls, parts: Sequence[DataFiles]) -> DataFiles:
        """The files of several parts; at least one."""
        return cls.of(*(file for part in parts for file in part.files))

    def rows(self, limit: int | None = None, place: Place | None = None) -> Iterator[Row]:
        """Read the rows of all files.

        Args:
            limit: number of rows after which to stop; None reads all.
            place: is told how far the reading is.

        Yields:
            Each row. In several files, `line` counts the rows of all of them.

        Raises:
            UsageError: `limit` is below 1.
            DataError: a file cannot be read, has no rows, or has a wrong one.
            MissingExtraError: a file needs pyarrow, which is not installed.
        """
        if limit is not None and limit < 1:
            raise UsageError(f"{self.path}: the limit must be 1 row or more, not {limit}")
        several, count = len(self.files) > 1, 0
        for file in self.files:
            for row in read_file(file, place, count):
                count += 1
                yield replace(row, line=count) if several else row
                if count == limit:
                    return

    def sha256(self) -> str:
        """Return the SHA-256 of the file, or of the digests of several.

        Raises:
            DataError: a file cannot be read.
        """
        digests = [file_digest(file) for file in self.files]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a data file.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return sha256_file(file)
    except OSError as error:
        raise DataError(f"{file}: cannot read the file: {error.strerror}") from error
