"""Files of records: whole, incomplete at the end, or damaged."""

from __future__ import annotations

import os
import struct
from io import BufferedReader
from pathlib import Path

import pytest

from edgezo_runtime.journal import record_log
from edgezo_runtime.journal.record_log import DamagedRecordError, RecordReader, RecordWriter
from edgezo_runtime.system.files import open_regular
from edgezo_runtime.system.framing import MAX_BODY, BodyStart, pack_record

HEAD = b"head"
BODIES = [b"one", b"two", b"three"]
ANY = BodyStart(1, 1, lambda start, distance: True)
NONE = BodyStart(1, 1, lambda start, distance: False)


def written(path: Path) -> list[int]:
    """Write the bodies; return the length of the file before each, and at the end."""
    path.write_bytes(HEAD)
    writer, ends = RecordWriter(path, len(HEAD)), [len(HEAD)]
    for body in BODIES:
        writer.append(body, sync=True)
        ends.append(writer.length)
    writer.close()
    return ends


def read(path: Path, start: BodyStart = ANY) -> tuple[list[bytes], int, int]:
    """Bodies, end of the whole records, and the bytes behind; refuses damage."""
    with BufferedReader(open_regular(path)) as file:
        reader = RecordReader(file, len(HEAD))
        bodies = list(reader)
        reader.require_incomplete(start)
        return bodies, reader.position, reader.rest


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    ends = written(tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == HEAD + b"".join(map(pack_record, BODIES))
    assert read(tmp_path / "log") == (BODIES, ends[-1], 0)
    with BufferedReader(open_regular(tmp_path / "log")) as file:
        reader = RecordReader(file, len(HEAD), ends[2])
        assert [(reader.position, body) for body in reader] == list(
            zip(ends[:2], BODIES[:2], strict=True)
        )
        assert (reader.position, reader.rest) == (ends[2], 0)


def test_every_incomplete_end_is_told(tmp_path: Path) -> None:
    ends = written(tmp_path / "log")
    data = (tmp_path / "log").read_bytes()
    for length in range(ends[0], len(data)):
        (tmp_path / "log").write_bytes(data[:length])
        whole = sum(end <= length for end in ends) - 1
        assert read(tmp_path / "log") == (BODIES[:whole], ends[whole], length - ends[whole])


def test_a_whole_record_that_fits_proves_damage(tmp_path: Path) -> None:
    ends = written(tmp_path / "log")
    data = bytearray((tmp_path / "log").read_bytes())
    data[ends[1] + 10] ^= 1
    (tmp_path / "log").write_bytes(data)
    with pytest.raises(DamagedRecordError) as caught:
        read(tmp_path / "log")
    told = f"damaged at byte {ends[1]}: the record at byte {ends[2]} is whole"
    assert str(caught.value).startswith(told)
    assert read(tmp_path / "log", NONE) == (BODIES[:1], ends[1], len(data) - ends[1])


def test_ends_that_no_crash_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = written(tmp_path / "log")
    with (tmp_path / "log").open("ab") as file:
        file.write(b"?" + struct.pack("<BII", 0xE2, MAX_BODY, 0) + bytes(2000))
    with monkeypatch.context() as patch:
        patch.setattr("edgezo_runtime.system.framing.SEARCH_BYTES", 1000)
        with pytest.raises(DamagedRecordError, match="looks like records"):
            read(tmp_path / "log")
    monkeypatch.setattr(record_log, "SEARCH_BYTES", 2009)
    with pytest.raises(DamagedRecordError, match=f"byte {ends[-1]}: 2010 bytes follow, which is"):
        read(tmp_path / "log")


def test_opening_truncates_what_follows(tmp_path: Path) -> None:
    ends = written(tmp_path / "log")
    writer = RecordWriter(tmp_path / "log", ends[1])
    assert (tmp_path / "log").stat().st_size == writer.length == ends[1]
    with (tmp_path / "log").open("ab") as file:
        file.write(b"left by an interrupt")
    writer.append(b"next", sync=False)
    writer.sync()
    assert not writer.removed
    (tmp_path / "log").rename(tmp_path / "moved")
    assert not writer.removed
    (tmp_path / "moved").rename(tmp_path / "log")
    writer.close()
    writer.close()
    assert writer.closed
    assert read(tmp_path / "log")[0] == [BODIES[0], b"next"]


def test_a_file_without_a_name_is_known(tmp_path: Path) -> None:
    ends = written(tmp_path / "log")
    writer = RecordWriter(tmp_path / "log", ends[-1])
    (tmp_path / "log").unlink()
    assert writer.removed
    writer.close()


class Failing:
    """A file whose writes, and perhaps truncations, fail half-way."""

    def __init__(self, file: object, *, truncates: bool) -> None:
        self._file, self._truncates = file, truncates

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        self._file.write(data[:5])  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    def truncate(self, size: int) -> int:
        if not self._truncates:
            raise OSError(5, "Input/output error")
        return int(self._file.truncate(size))  # type: ignore[attr-defined]


@pytest.mark.parametrize("truncates", [True, False])
def test_a_failed_append_is_undone_or_the_last(tmp_path: Path, truncates: bool) -> None:
    ends = written(tmp_path / "log")
    writer = RecordWriter(tmp_path / "log", ends[-1])
    writer._file = Failing(writer._file, truncates=truncates)  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left"):
        writer.append(b"more", sync=True)
    assert writer.closed is not truncates
    assert writer.length == ends[-1]
    assert (tmp_path / "log").stat().st_size == ends[-1] + (0 if truncates else 5)
    writer.close()


def test_an_unsynced_record_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = written(tmp_path / "log")
    writer = RecordWriter(tmp_path / "log", ends[-1])

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(record_log, "sync_descriptor", interrupt)
        with pytest.raises(KeyboardInterrupt):
            writer.append(b"more", sync=True)
    assert os.path.getsize(tmp_path / "log") == ends[-1]
    writer.append(b"more", sync=True)
    writer.close()
    assert read(tmp_path / "log")[0] == [*BODIES, b"more"]


def test_a_file_that_cannot_be_truncated_is_not_left_open(tmp_path: Path) -> None:
    ends = written(tmp_path / "log")
    with pytest.raises(OSError, match="Invalid argument"):
        RecordWriter(tmp_path / "log", -1)
    assert read(tmp_path / "log") == (BODIES, ends[-1], 0)
