"""Append-only files of records: which records are whole, and what a power cut left at the end.

The journal and the log of added examples are such files. A record that is not whole is one of two
things. If no whole record follows, a crash interrupted its write: it is an incomplete record at the
end, and is truncated. If a whole record follows that was begun after the bad one was synced, the
file is damaged.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgezo_runtime.system.files import open_regular, sync_descriptor
from edgezo_runtime.system.framing import (
    RECORD_PREFIX,
    SEARCH_BYTES,
    BodyStart,
    RecordSearchError,
    find_whole,
    pack_record,
    read_body,
    write_whole,
)


class DamagedRecordError(Exception):
    """A record that had been synced is not whole; says where, and how that is known."""


class RecordReader:
    """Reads the whole records of a file in order.

    Args:
        file: the file.
        start: offset of the first record.
        size: bytes of the file to read; None for all.

    Attributes:
        position: offset of the record that is being read; after the last whole one, its end.
    """

    def __init__(self, file: BinaryIO, start: int, size: int | None = None) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size if size is None else size
        self.position = start

    @property
    def rest(self) -> int:
        """Bytes behind `position`."""
        return self._size - self.position

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body of each record, up to the first that is not whole."""
        while (body := read_body(self._file, self.position, self._size)) is not None:
            yield body
            self.position += RECORD_PREFIX.size + len(body)

    def require_incomplete(self, start: BodyStart) -> None:
        """Refuse what follows the last whole record unless a crash can have left it.

        Args:
            start: tells which records may follow one that had been synced.
        Raises:
            DamagedRecordError: a crash does not leave such an end.
        """
        if not self.rest:
            return
        if self.rest > SEARCH_BYTES:
            raise DamagedRecordError(
                f"damaged at byte {self.position}: {self.rest} bytes follow, which is more than a "
                f"crash leaves"
            )
        try:
            at = find_whole(self._file, self.position, self._size, start)
        except RecordSearchError as error:
            raise DamagedRecordError(
                f"damaged at byte {self.position}: too much of what follows looks like records"
            ) from error
        if at is not None:
            raise DamagedRecordError(
                f"damaged at byte {self.position}: the record at byte {at} is whole, and the bytes "
                f"before it had been saved"
            )


class RecordWriter:
    """Appends records to a file; an append either succeeds or leaves the file as it was.

    Args:
        path: the file; no link.
        length: bytes of the whole records and what precedes them; what follows is truncated.

    Attributes:
        length: bytes of the file.

    Raises:
        OSError: the file cannot be opened or truncated.
    """

    def __init__(self, path: str | Path, length: int) -> None:
        self.length = length
        self._file = open_regular(path, "ab", follow=False)
        try:
            self._file.truncate(length)
        except BaseException:
            self._file.close()
            raise

    @property
    def closed(self) -> bool:
        """Was the file closed, by `close` or after a write that could not be undone?"""
        return self._file.closed

    @property
    def removed(self) -> bool:
        """Does the file have no name any more?"""
        return os.fstat(self._file.fileno()).st_nlink == 0

    def append(self, body: bytes, *, sync: bool) -> None:
        """Add a record.

        Args:
            body: at most `MAX_BODY` bytes.
            sync: wait until the record is on the disk.
        Raises:
            OSError: the disk did not take it. The file is as before, or closed if the disk does not
                allow that either.
        """
        data = pack_record(body)
        try:
            if os.fstat(self._file.fileno()).st_size != self.length:
                self._file.truncate(self.length)  # an interrupt came before `length` was set
            write_whole(self._file, data)
            if sync:
                self.sync()
        except BaseException:  # an interrupt must not leave half a record either
            self._undo()
            raise
        self.length += len(data)

    def sync(self) -> None:
        """Wait until all records are on the disk.

        Raises:
            OSError: the disk did not take them.
        """
        sync_descriptor(self._file.fileno())

    def close(self) -> None:
        """Close the file as it is; a second call does nothing."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _undo(self) -> None:
        """Truncate half a record; if that fails, let nothing follow it."""
        try:
            self._file.truncate(self.length)
        except OSError:
            self.close()
