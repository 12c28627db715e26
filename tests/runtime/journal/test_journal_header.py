"""Headers of journals: a damaged one is named."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.journal_header import (
    JOURNAL_VERSION,
    JournalHeader,
    read_journal_header,
)
from tests.runtime.journal.journals import record_ends, write


def test_a_damaged_header_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    write(path, 1)
    data, ends = path.read_bytes(), record_ends(path)
    for at in range(ends[0]):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        message = "not an edgezo journal" if at < 8 else "has version" if at < 12 else "header"
        with pytest.raises(RunFileError, match=message):
            read_journal(path)
    for size in range(ends[0]):
        path.write_bytes(data[:size])
        with pytest.raises(RunFileError, match=r"not an edgezo journal|damaged header"):
            read_journal(path)


def test_a_header_is_read_up_to_the_first_record() -> None:
    data = JournalHeader({"b": 1, "a": {"c": [None, 2.5]}}).pack()
    file = BytesIO(data + b"records")
    found = read_journal_header(file, "j")
    assert found == JournalHeader({"a": {"c": [None, 2.5]}, "b": 1}, JOURNAL_VERSION)
    assert file.read() == b"records"
    assert found.pack() == data


def test_what_is_not_json_is_refused() -> None:
    for value in (float("nan"), {1, 2}, b"x"):
        with pytest.raises(UsageError, match="journal header: not JSON"):
            JournalHeader({"a": value}).pack()
