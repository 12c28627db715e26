"""The journal of a run: an append-only file with one CRC-protected record per step.

    file    = magic "\\x89EZJ\\r\\n\\x1a\\n" | version u32 | length u32 | JSON | crc32 of all before
              then records
    record  = 0xE2 | length u32 | crc32 u32 of (length, body) | body
    body    = bytes since the last sync before this record (LEB128) | step record

All integers are little-endian. A record says how many bytes before it may not have reached the disk
when it was written. So after a power cut, damage is told apart from an incomplete end. Everything
that had been synced must be whole; an error says where it is not. The rest is truncated, and its
size is reported. `docs/decisions/0003-journal.md` says why.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.journal_header import JournalHeader, read_journal_header
from edgezo_runtime.journal.record_log import DamagedRecordError, RecordReader, RecordWriter
from edgezo_runtime.journal.step_record import StepRecord, pack_count, unpack_count
from edgezo_runtime.journal.sync_policy import SyncPolicy
from edgezo_runtime.system.files import atomic_write, open_regular
from edgezo_runtime.system.framing import MAX_BODY, BodyStart

_STEP_BYTES = 8
_COUNT_BYTES = 10  # LEB128 of 64 bits


class JournalContents(NamedTuple):
    """The contents of a journal.

    Attributes:
        header: what the journal belongs to.
        records: the whole records in order; read from the file one by one, once.
        good_length: bytes of the header and the whole records.
        incomplete_bytes: bytes behind them, which a crash left; 0 if the journal ended well.
    """

    header: JournalHeader
    records: Iterator[StepRecord]
    good_length: int
    incomplete_bytes: int


def read_journal(path: str | Path) -> JournalContents:
    """Check a journal from end to end and give its records.

    The file is not changed; `Journal.open` truncates an incomplete record at the end.

    Args:
        path: the journal.

    Returns:
        Header, records, and the lengths of the whole part and of the incomplete end.

    Raises:
        RunFileError: the file is missing, no journal, of another version, or damaged where it had
            been synced. The records are checked before this returns.

    Memory:
        One record, and a copy of its bytes.
    """
    try:
        with BufferedReader(open_regular(path)) as file:
            header = read_journal_header(file, path)
            start, last = file.tell(), -1
            reader = RecordReader(file, start)
            for body in reader:
                last = _step_of(body, path, reader.position)
            reader.require_incomplete(_start_of_body(last))
    except OSError as error:
        raise RunFileError(f"journal '{path}' cannot be read: {error.strerror}") from error
    except DamagedRecordError as error:
        raise RunFileError(
            f"journal '{path}' is {error}; restore the file from a copy, or truncate it at that "
            f"byte and lose the steps behind"
        ) from error
    end = reader.position
    return JournalContents(header, _iterate(path, start, end), end, reader.rest)


class Journal:
    """A journal open for appending; one process at a time.

    Attributes:
        header: what the journal belongs to.
        incomplete_bytes: what `open` truncated.
    """

    def __init__(
        self, path: str | Path, header: JournalHeader, sync: SyncPolicy, length: int, rest: int
    ) -> None:
        """Open a file that has been checked, and truncate it to `length`.

        Use `create` or `open` instead.
        """
        self.header = header
        self.incomplete_bytes = rest
        self._path = path
        self._policy = sync
        try:
            self._writer = RecordWriter(path, length)
        except OSError as error:
            raise self._failed(error) from error
        try:
            self.sync()
        except BaseException:
            self.abandon()
            raise

    @classmethod
    def create(
        cls, path: str | Path, meta: Mapping[str, Any], sync: SyncPolicy | None = None
    ) -> Journal:
        """Create a new journal.

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
        """Resume a journal; truncate an incomplete record at its end.

        Args:
            path: the journal.
            sync: when to force records to the disk; after each step if None.

        Returns:
            The journal; `incomplete_bytes` says how much was truncated.

        Raises:
            RunFileError: as for `read_journal`, or the disk did not allow to truncate the file.
        """
        found = read_journal(path)
        policy = sync or SyncPolicy()
        return cls(path, found.header, policy, found.good_length, found.incomplete_bytes)

    def append(self, record: StepRecord) -> None:
        """Add a record, and sync if the policy says so.

        Args:
            record: the step that is about to be applied.

        Raises:
            RunFileError: the disk did not take it. The file is as before. If the disk does not
                allow that, or does not sync, the journal is closed and must be opened again, which
                finds out what it holds.
            UsageError: the record is longer than the format allows (64 MiB).
        """
        self._require_open()
        body = pack_count(self.unsynced_bytes) + record.pack()
        if len(body) > MAX_BODY:
            raise UsageError(f"step {record.step}: a record of {len(body)} bytes is too long")
        try:
            self._writer.append(body, sync=False)
        except OSError as error:
            raise self._failed(error) from error
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
            self._writer.sync()
            removed = self._writer.removed
        except OSError as error:
            self.abandon()  # a second fsync may report success although data was lost
            raise self._failed(error) from error
        if removed:
            raise RunFileError(
                f"journal '{self._path}' was removed while the run went on; the steps since are "
                f"lost, start again in another folder"
            )
        self._synced_length = self._writer.length
        self._synced_at = time.monotonic()
        self._unsynced_records = 0

    def close(self) -> None:
        """Sync and close the file; a second call does nothing.

        Raises:
            RunFileError: the disk did not take the last records.
        """
        if self._writer.closed:
            return
        try:
            self.sync()
        finally:
            self._writer.close()

    def abandon(self) -> None:
        """Close the file without a sync, when its contents must be read again."""
        self._writer.close()

    @property
    def unsynced_bytes(self) -> int:
        """Bytes that a power cut now could lose."""
        return self._writer.length - self._synced_length

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
        if self._writer.closed:
            raise RunFileError(
                f"journal '{self._path}' is closed, either at its end or after a failed write; "
                f"open the run again"
            )

    def _failed(self, error: OSError) -> RunFileError:
        return RunFileError(
            f"journal '{self._path}' cannot be written: {error.strerror}; the steps in it are "
            f"safe, resume the run when the cause is fixed"
        )


def _step_of(body: bytes, path: str | Path, offset: int) -> int:
    """The step of a whole record."""
    try:
        start = unpack_count(body, 0)[1]
    except (IndexError, ValueError) as error:
        raise RunFileError(f"journal '{path}' has no record at byte {offset}: {error}") from error
    return int.from_bytes(body[start : start + _STEP_BYTES], "little")


def _start_of_body(last: int) -> BodyStart:
    """How a record begins that proves damage before it.

    Such a record is of a later step, and of one that the bytes between leave room for. It says
    that the bytes of the damage had been synced.

    Args:
        last: the step before the damage.
    """

    def fits(start: bytes, distance: int) -> bool:
        try:
            unsynced, at = unpack_count(start, 0)
        except (IndexError, ValueError):
            return False
        step = int.from_bytes(start[at : at + _STEP_BYTES], "little")
        return unsynced < distance and last < step <= last + 1 + distance

    return BodyStart(1 + _STEP_BYTES, _COUNT_BYTES + _STEP_BYTES, fits)


def _iterate(path: str | Path, start: int, end: int) -> Iterator[StepRecord]:
    """Read the records between two offsets that `read_journal` has checked."""
    with BufferedReader(open_regular(path)) as file:
        reader = RecordReader(file, start, end)
        for body in reader:
            yield StepRecord.unpack(body[unpack_count(body, 0)[1] :])
    if reader.rest:
        raise RunFileError(f"journal '{path}' changed while it was read, at byte {reader.position}")
