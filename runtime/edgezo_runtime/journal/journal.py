"""The journal of a run: an append-only file with one CRC-protected record a step.

    file    = magic "\\x89EZJ\\r\\n\\x1a\\n" | version u32 | length u32 | JSON | crc32 of all before
              then records
    record  = 0xE2 | length u32 | crc32 u32 of (length, body) | body
    body    = bytes since the last sync before this record (LEB128) | step record

All integers are little-endian. A record says how much before it may not have reached the disk when
it was written. So after a power cut, damage is told apart from a torn tail: what was synced must be
whole, and an error says where it is not; what was not is cut, and reported.
`docs/decisions/0003-journal.md` says why.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.step_record import StepRecord, pack_count, unpack_count
from edgezo_runtime.system.files import atomic_write, open_regular, sync_descriptor
from edgezo_runtime.system.framing import (
    FRAME,
    MAX_BODY,
    SEARCH_BYTES,
    RecordSearchError,
    find_whole,
    pack_record,
    read_body,
    write_whole,
)
from edgezo_runtime.system.typed_json import LONGEST_TEXT, JsonShapeError, parse_object

JOURNAL_VERSION = 2
_MAGIC = b"\x89EZJ\r\n\x1a\n"
_PREFIX = struct.Struct("<8sII")  # magic, version, length of the JSON
_CRC = struct.Struct("<I")
_STEP_BYTES = 8
_LONGEST_START = 10 + _STEP_BYTES  # LEB128 of 64 bits, and the step


@dataclass(frozen=True)
class JournalHeader:
    """What a journal belongs to.

    Attributes:
        meta: JSON values the run gives: digests of the configuration and the bundle, the seed, ...
        version: of the format.
    """

    meta: Mapping[str, Any]
    version: int = JOURNAL_VERSION

    def pack(self) -> bytes:
        """Write the header as the first bytes of a journal.

        Returns:
            Bytes that depend on the values only, not on the order of the keys.

        Raises:
            UsageError: a value is not JSON.
        """
        try:
            text = json.dumps(
                dict(self.meta), sort_keys=True, separators=(",", ":"), allow_nan=False
            )
        except (TypeError, ValueError) as error:
            raise UsageError(f"journal header: not JSON: {error}") from error
        data = _PREFIX.pack(_MAGIC, self.version, len(text)) + text.encode("ascii")
        return data + _CRC.pack(zlib.crc32(data))


@dataclass(frozen=True)
class SyncPolicy:
    """When appended records are forced to the disk: as soon as one of the limits is reached.

    A power cut loses at most what was appended since the last sync; the run does those steps again.

    Attributes:
        every_steps: records between syncs; None is no limit.
        every_s: seconds between syncs, looked at when a record is appended; None is no limit.

    Raises:
        UsageError: a limit is not above zero.
    """

    every_steps: int | None = 1
    every_s: float | None = None

    def __post_init__(self) -> None:
        for what, limit in (("every_steps", self.every_steps), ("every_s", self.every_s)):
            if limit is not None and not limit > 0:
                raise UsageError(f"sync policy: {what} must be above zero, not {limit}")

    def due(self, records: int, elapsed_s: float) -> bool:
        """Tell whether to sync, given what has been appended since the last time."""
        return (self.every_steps is not None and records >= self.every_steps) or (
            self.every_s is not None and elapsed_s >= self.every_s
        )


class JournalContents(NamedTuple):
    """What `read_journal` found.

    Attributes:
        header: what the journal belongs to.
        records: the whole records in order; read from the file one by one, once.
        good_length: bytes of the header and the whole records.
        torn_bytes: bytes behind them, of records that a crash cut short; 0 if it ended well.
    """

    header: JournalHeader
    records: Iterator[StepRecord]
    good_length: int
    torn_bytes: int


def read_journal(path: str | Path) -> JournalContents:
    """Check a journal from end to end and give its records.

    The file is not changed; `Journal.open` cuts the torn tail.

    Args:
        path: the journal.

    Returns:
        Header, records, and the lengths of the good part and of the torn tail.

    Raises:
        RunFileError: the file is missing, no journal, of another version, or damaged where it had
            been synced. The records are checked before this returns.

    Memory:
        One record, and a copy of its bytes.
    """
    try:
        with BufferedReader(open_regular(path)) as file:
            header = _read_header(file, path)
            start = good = file.tell()
            size = os.fstat(file.fileno()).st_size
            last = -1
            while (body := read_body(file, good, size)) is not None:
                last = _step_of(body, path, good)
                good += FRAME.size + len(body)
            if good < size:
                _require_torn(file, good, size, last, path)
    except OSError as error:
        raise RunFileError(f"journal '{path}' cannot be read: {error.strerror}") from error
    return JournalContents(header, _iterate(path, start, good), good, size - good)


class Journal:
    """A journal open for appending; one process at a time.

    Attributes:
        header: what the journal belongs to.
        torn_bytes: what `open` cut from the end.
    """

    def __init__(
        self, path: str | Path, header: JournalHeader, sync: SyncPolicy, length: int, torn: int
    ) -> None:
        """Open a file that has been checked, and cut it to `length`; use `create` or `open`."""
        self.header = header
        self.torn_bytes = torn
        self._path = path
        self._policy = sync
        self._length = length
        try:
            self._file = open_regular(path, "ab", follow=False)
        except OSError as error:
            raise self._failed(error) from error
        try:
            self._file.truncate(length)
            self.sync()
        except BaseException as error:
            self._file.close()
            if isinstance(error, OSError):
                raise self._failed(error) from error
            raise

    @classmethod
    def create(
        cls, path: str | Path, meta: Mapping[str, Any], sync: SyncPolicy | None = None
    ) -> Journal:
        """Start a new journal.

        Args:
            path: must not exist; its directory must.
            meta: JSON values for the header.
            sync: when to force records to the disk; after each step if None.

        Returns:
            The journal, its header on the disk.

        Raises:
            UsageError: the file exists, or `meta` is not JSON.
            RunFileError: the disk did not take it.
        """
        header = JournalHeader(dict(meta))
        if Path(path).exists():
            raise UsageError(
                f"journal '{path}' exists; resume that run or choose another directory"
            )
        data = header.pack()
        try:
            atomic_write(path, data)
        except OSError as error:
            raise RunFileError(f"journal '{path}' cannot be made: {error.strerror}") from error
        return cls(path, header, sync or SyncPolicy(), len(data), 0)

    @classmethod
    def open(cls, path: str | Path, sync: SyncPolicy | None = None) -> Journal:
        """Go on with a journal, cutting a torn tail.

        Args:
            path: the journal.
            sync: when to force records to the disk; after each step if None.

        Returns:
            The journal; `torn_bytes` says how much was cut.

        Raises:
            RunFileError: as for `read_journal`, or the disk did not take the cut.
        """
        found = read_journal(path)
        return cls(path, found.header, sync or SyncPolicy(), found.good_length, found.torn_bytes)

    def append(self, record: StepRecord) -> None:
        """Add a record, and sync if the policy says so.

        Args:
            record: the step that is about to be applied.

        Raises:
            RunFileError: the disk did not take it; the file is as before, or closed where the
                disk does not allow that either, or does not sync: what it holds is found out when
                it is opened again.
            UsageError: the record is longer than the format allows (64 MiB).
        """
        self._require_open()
        body = pack_count(self.unsynced_bytes) + record.pack()
        if len(body) > MAX_BODY:
            raise UsageError(f"step {record.step}: a record of {len(body)} bytes is too long")
        data = pack_record(body)
        try:
            write_whole(self._file, data)
        except BaseException as error:  # an interrupt as well must not leave half a record
            self._cut_back()
            if isinstance(error, OSError):
                raise self._failed(error) from error
            raise
        self._length += len(data)
        self._unsynced_records += 1
        if self._policy.due(self._unsynced_records, time.monotonic() - self._synced_at):
            self.sync()

    def sync(self) -> None:
        """Wait until all appended records are on the disk.

        Raises:
            RunFileError: the disk did not take them.
        """
        self._require_open()
        try:
            sync_descriptor(self._file.fileno())
            names = os.fstat(self._file.fileno()).st_nlink
        except OSError as error:
            self.abandon()  # a second fsync may say that all is well when it is not
            raise self._failed(error) from error
        if not names:
            raise RunFileError(
                f"journal '{self._path}' was removed while the run went on; what it kept since "
                f"is lost, start again in another folder"
            )
        self._synced_length = self._length
        self._synced_at = time.monotonic()
        self._unsynced_records = 0

    def close(self) -> None:
        """Sync and close the file; a second call does nothing.

        Raises:
            RunFileError: the disk did not take the last records.
        """
        if self._file.closed:
            return
        try:
            self.sync()
        finally:
            self._file.close()

    def _cut_back(self) -> None:
        """Take half a record away: nothing may follow it."""
        try:
            self._file.truncate(self._length)
        except OSError:
            self.abandon()

    def abandon(self) -> None:
        """Close the file as it is, when what it holds has to be found out again."""
        with contextlib.suppress(OSError):
            self._file.close()

    @property
    def unsynced_bytes(self) -> int:
        """Bytes that a power cut now could lose."""
        return self._length - self._synced_length

    def __enter__(self) -> Journal:
        """Return the journal itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the journal."""
        self.close()

    def _require_open(self) -> None:
        if self._file.closed:
            raise RunFileError(
                f"journal '{self._path}' is closed, after a write that failed or at its end; open "
                f"the run again"
            )

    def _failed(self, error: OSError) -> RunFileError:
        return RunFileError(
            f"journal '{self._path}' cannot be written: {error.strerror}; the steps in it are "
            f"safe, continue the run when that is mended"
        )


def _read_header(file: BinaryIO, path: str | Path) -> JournalHeader:
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size or not prefix.startswith(_MAGIC):
        raise RunFileError(f"'{path}' is not an edgezo journal")
    _, version, length = _PREFIX.unpack(prefix)
    if version != JOURNAL_VERSION:
        raise RunFileError(
            f"journal '{path}' has version {version}, this edgezo reads {JOURNAL_VERSION}; "
            "use the edgezo that wrote it"
        )
    text, crc = file.read(min(length, LONGEST_TEXT)), file.read(_CRC.size)
    if crc != _CRC.pack(zlib.crc32(prefix + text)):
        raise RunFileError(f"journal '{path}' has a damaged header; it cannot be resumed")
    try:
        return JournalHeader(parse_object(text.decode("ascii")), version)
    except (UnicodeDecodeError, JsonShapeError) as error:
        raise RunFileError(f"journal '{path}' has a header that is no run's: {error}") from error


def _step_of(body: bytes, path: str | Path, offset: int) -> int:
    """The step of a whole record."""
    try:
        start = unpack_count(body, 0)[1]
    except (IndexError, ValueError) as error:
        raise RunFileError(f"journal '{path}' has no record at byte {offset}: {error}") from error
    return int.from_bytes(body[start : start + _STEP_BYTES], "little")


def _require_torn(file: BinaryIO, good: int, size: int, last: int, path: str | Path) -> None:
    """Refuse a bad record if a later whole one says that it had been synced.

    A later record is of a later step, and of one that the bytes between leave room for. What only
    looks like a frame is almost never so, and costs no checksum; a file that is made to look so all
    over is refused after `frames.SEARCH_BYTES`, or some two million of them.
    """
    if size - good > SEARCH_BYTES:
        raise RunFileError(
            f"journal '{path}' is damaged at byte {good}: {size - good} bytes behind are more than "
            f"a crash leaves; restore the file from a copy, or cut it there"
        )
    starts = FRAME.size + 1 + _STEP_BYTES, FRAME.size + _LONGEST_START
    try:
        at = find_whole(
            file, good, size, starts, lambda frame, by: _fitting_length(frame, by, last)
        )
    except RecordSearchError as error:
        raise RunFileError(
            f"journal '{path}' is damaged at byte {good}, and too much behind it looks like "
            f"records; restore the file from a copy, or cut it there"
        ) from error
    if at is not None:
        raise RunFileError(
            f"journal '{path}' is damaged at byte {good}: records up to byte {at} had "
            "been saved and the next one is whole; restore the file from a copy, or cut it "
            "there to lose the steps behind"
        )


def _fitting_length(frame: bytes, distance: int, last: int) -> int:
    """How long the record of a frame is; 0 where there can be none.

    Args:
        frame: the bytes from its marker on, to the step of the record.
        distance: bytes between the damage and the marker.
        last: the step before the damage.
    """
    _, length, _ = FRAME.unpack_from(frame)
    if not 0 < length <= MAX_BODY:
        return 0
    try:
        unsynced, start = unpack_count(frame, FRAME.size)
    except (IndexError, ValueError):
        return 0
    step = int.from_bytes(frame[start : start + _STEP_BYTES], "little")
    fits = unsynced < distance and last < step <= last + 1 + distance
    return length if fits else 0


def _iterate(path: str | Path, start: int, end: int) -> Iterator[StepRecord]:
    """Read the records between two offsets that `read_journal` has checked."""
    with BufferedReader(open_regular(path)) as file:
        while start < end:
            body = read_body(file, start, end)
            if body is None:
                raise RunFileError(f"journal '{path}' changed while it was read, at byte {start}")
            yield StepRecord.unpack(body[unpack_count(body, 0)[1] :])
            start += FRAME.size + len(body)
