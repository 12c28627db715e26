"""The journal: pinned bytes, incomplete ends truncated, damage never taken for one."""

import time
from pathlib import Path

import numpy as np
import pytest

from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal import record_log as record_log_module
from edgezo_runtime.journal.journal import Journal, read_journal
from edgezo_runtime.journal.journal_header import JournalHeader
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.journal.sync_policy import SyncPolicy
from tests.runtime.journal.journals import META, make_record, record_ends, write


def test_golden_bytes(tmp_path: Path) -> None:
    """Journals of version 2 stay readable: a change of these bytes needs version 3."""
    path = tmp_path / "journal"
    with Journal.create(path, {"b": 1, "a": "x"}) as journal:
        journal.append(StepRecord(3, 7, 0.5, (0, 1, 5), np.array([[1.0], [-2.0]]), b"!"))
    assert path.read_bytes().hex(" ") == (
        "89 45 5a 4a 0d 0a 1a 0a 02 00 00 00 0f 00 00 00 "  # magic, version, length
        "7b 22 61 22 3a 22 78 22 2c 22 62 22 3a 31 7d "  # {"a":"x","b":1}
        "d9 00 96 24 "  # crc
        "e2 22 00 00 00 f1 14 ea 1f "  # marker, length, crc
        "00 "  # unsynced
        "03 00 00 00 00 00 00 00 "  # step
        "07 00 00 00 00 00 00 00 "  # seed
        "00 00 00 3f "  # lr
        "03 23 "  # blocks as one octet of bits
        "02 01 "  # 2 probes, 1 row
        "00 00 80 3f 00 00 00 c0 "  # losses
        "21"  # extra
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    records = [
        make_record(0),
        StepRecord(1, 0, 0.1, (), np.zeros((0, 0))),
        StepRecord(2**64 - 1, 2**64 - 1, float("inf"), (7,), np.ones((3, 300)), bytes(range(256))),
    ]
    with Journal.create(path, META) as journal:
        for record in records:
            journal.append(record)
    found = read_journal(path)
    assert found.header == JournalHeader(META)
    assert list(found.records) == records
    assert found.good_length == path.stat().st_size
    assert found.incomplete_bytes == 0


def test_a_journal_without_steps_is_read(tmp_path: Path) -> None:
    write(tmp_path / "journal", 0)
    found = read_journal(tmp_path / "journal")
    assert list(found.records) == []
    assert found.incomplete_bytes == 0


@pytest.mark.parametrize("sync", [SyncPolicy(), SyncPolicy(every_steps=2)])
def test_an_end_incomplete_at_any_byte_is_truncated_and_the_run_resumes(
    tmp_path: Path, sync: SyncPolicy
) -> None:
    path, short = tmp_path / "journal", tmp_path / "short"
    records = write(path, 4, sync)
    data, ends = path.read_bytes(), record_ends(path)
    for size in range(ends[0], len(data) + 1):
        short.write_bytes(data[:size])
        whole = max(i for i, end in enumerate(ends) if end <= size)
        found = read_journal(short)
        assert list(found.records) == records[:whole]
        assert found.good_length == ends[whole]
        assert found.incomplete_bytes == size - ends[whole]
        if size % 7 == 0:  # some of the places: opening syncs the disk
            with Journal.open(short) as journal:
                assert journal.incomplete_bytes == size - ends[whole]
                for record in records[whole:]:
                    journal.append(record)
            assert list(read_journal(short).records) == records


@pytest.mark.parametrize("filler", [b"\x00", b"\xff", b"\xe2"])
def test_an_end_of_garbage_is_truncated(tmp_path: Path, filler: bytes) -> None:
    """File systems may leave pages of zeros behind what had been synced."""
    path = tmp_path / "journal"
    records = write(path, 3)
    with open(path, "ab") as file:
        file.write(filler * 5000)
    found = read_journal(path)
    assert list(found.records) == records
    assert found.incomplete_bytes == 5000


def test_a_bit_flipped_in_the_middle_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, 3)
    data, ends = path.read_bytes(), record_ends(path)
    for at in range(ends[0], ends[2]):  # in the first two of three records
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        start = ends[0] if at < ends[1] else ends[1]
        with pytest.raises(RunFileError, match=f"is damaged at byte {start}: "):
            read_journal(path)
        with pytest.raises(RunFileError, match="is damaged"):
            Journal.open(path)
        assert path.read_bytes() == damaged
    damaged = bytearray(data)
    damaged[-1] ^= 0x10  # in the last record: nothing says that it had been saved
    path.write_bytes(damaged)
    assert read_journal(path).incomplete_bytes == ends[3] - ends[2]


def test_a_hole_in_what_was_never_synced_is_truncated(tmp_path: Path) -> None:
    """A disk may keep a later page and lose an earlier one, if neither was synced."""
    path = tmp_path / "journal"
    records = write(path, 11, SyncPolicy(every_steps=3))  # synced after 3, 6, 9, and when closed
    data, ends = bytearray(path.read_bytes()), record_ends(path)
    lost = data.copy()
    lost[ends[9] : ends[10]] = bytes(ends[10] - ends[9])
    path.write_bytes(lost)
    found = read_journal(path)
    assert list(found.records) == records[:9]
    assert found.incomplete_bytes == ends[11] - ends[9]
    data[ends[8] + 3] ^= 1  # before the last sync
    path.write_bytes(data)
    with pytest.raises(RunFileError, match=f"damaged at byte {ends[8]}: "):
        read_journal(path)


def test_a_missing_or_existing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="cannot be read: No such file"):
        read_journal(tmp_path / "absent")
    with pytest.raises(RunFileError, match="cannot be made: No such file"):
        Journal.create(tmp_path / "absent" / "journal", META)
    write(tmp_path / "journal", 1)
    with pytest.raises(UsageError, match="exists; resume that run"):
        Journal.create(tmp_path / "journal", META)
    with pytest.raises(UsageError, match="not JSON"):
        Journal.create(tmp_path / "other", {"x": float("nan")})
    assert not (tmp_path / "other").exists()


def count_syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    monkeypatch.setattr(record_log_module, "sync_descriptor", calls.append)
    return calls


def test_syncs_follow_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_syncs(monkeypatch)
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for name, policy, expected in (
        ("each", SyncPolicy(), 6),
        ("third", SyncPolicy(every_steps=3), 2),
        ("seconds", SyncPolicy(every_steps=None, every_s=2.0), 3),
        ("never", SyncPolicy(every_steps=None), 0),
    ):
        journal = Journal.create(tmp_path / name, META, policy)
        calls.clear()
        for step in range(6):
            now += 1
            journal.append(make_record(step))
        assert len(calls) == expected, name
        assert (journal.unsynced_bytes == 0) is (expected > 0)
        journal.close()
        journal.close()
        assert len(calls) == expected + 1
    with pytest.raises(UsageError, match="every_steps must be above zero"):
        SyncPolicy(every_steps=0)
    with pytest.raises(UsageError, match="every_s must be above zero"):
        SyncPolicy(every_s=-1.0)


class FullDisk:
    """A file that takes a few bytes and then fails."""

    def __init__(self, file: object, error: BaseException) -> None:
        self._file, self._error, self._calls = file, error, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        self._calls += 1
        if self._calls == 2:
            raise self._error
        return int(self._file.write(data[:5]))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "seen"),
    [(OSError(28, "No space left on device"), RunFileError), (KeyboardInterrupt(), None)],
)
def test_a_failed_append_leaves_whole_records(
    tmp_path: Path, error: BaseException, seen: type[BaseException] | None
) -> None:
    path = tmp_path / "journal"
    with Journal.create(path, META) as journal:
        journal.append(make_record(0))
        file = journal._writer._file
        journal._writer._file = FullDisk(file, error)  # type: ignore[assignment]
        with pytest.raises(seen or type(error)):
            journal.append(make_record(1))
        journal._writer._file = file
        journal.append(make_record(1))  # space was made: goes on without a gap
    assert list(read_journal(path).records) == [make_record(0), make_record(1)]


class NoWay(FullDisk):
    """A file that cannot be truncated either."""

    def truncate(self, size: int) -> int:
        raise OSError(5, "Input/output error")


def test_half_a_record_that_cannot_be_taken_away_is_the_last(tmp_path: Path) -> None:
    """Pins steps that were written behind an incomplete one, and lost with it."""
    path = tmp_path / "journal"
    with Journal.create(path, META) as journal:
        journal.append(make_record(0))
        journal._writer._file = NoWay(journal._writer._file, OSError(28, "full"))  # type: ignore[assignment]
        with pytest.raises(RunFileError, match="cannot be written: full"):
            journal.append(make_record(1))
        for again in (lambda: journal.append(make_record(1)), journal.sync):
            with pytest.raises(RunFileError, match="open the run again"):
                again()
    with Journal.open(path) as journal:
        assert journal.incomplete_bytes == 5
        journal.append(make_record(1))
    assert list(read_journal(path).records) == [make_record(0), make_record(1)]


def test_after_a_failed_fsync_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    with Journal.create(path, META) as journal:
        journal.append(make_record(0))
        with monkeypatch.context() as patch:
            patch.setattr("edgezo_runtime.journal.record_log.sync_descriptor", failing_sync)
            with pytest.raises(RunFileError, match="Input/output error"):
                journal.append(make_record(1))
        with pytest.raises(RunFileError, match="open the run again"):
            journal.append(make_record(1))
    assert list(read_journal(path).records) == [make_record(0), make_record(1)]


def failing_sync(descriptor: int) -> None:
    raise OSError(5, "Input/output error")


def test_short_writes_are_continued(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal.create(path, META) as journal:
        file = journal._writer._file
        shorten = FullDisk(file, OSError())
        shorten._calls = 2
        journal._writer._file = shorten  # type: ignore[assignment]
        journal.append(make_record(0))
    assert list(read_journal(path).records) == [make_record(0)]


def test_opening_for_reading_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, 2)
    path.write_bytes(path.read_bytes()[:-3])
    before = path.read_bytes()
    list(read_journal(path).records)
    assert path.read_bytes() == before
