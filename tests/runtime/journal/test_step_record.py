"""Records of steps: pinned forms, and bytes that are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgezo_runtime.bundle.trainables import MAX_BLOCKS
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.step_record import (
    RecordExtra,
    StepRecord,
    pack_blocks,
    pack_count,
    unpack_blocks,
    unpack_count,
)
from tests.runtime.journal.journals import make_record


def test_a_two_point_step_is_small() -> None:
    assert len(make_record(10**6).pack()) == 33
    scattered = StepRecord(10**6, 2**64 - 1, 1e-3, tuple(range(0, 126, 2)), np.ones((2, 1)))
    assert 9 + 1 + 4 + len(scattered.pack()) < 75  # with frame, unsynced bytes and time


def test_blocks_are_written_the_shorter_way() -> None:
    assert pack_blocks(()) == bytes.fromhex("00")
    assert pack_blocks((40, 41, 42)) == bytes.fromhex("02 28 02")
    assert pack_blocks((0, 2, 4, 9)) == bytes.fromhex("05 15 02")
    bad = {"05 15": "2 octets", "01": "0 octets", "05 15 00": "2 octets"}
    for text, message in bad.items():
        with pytest.raises(ValueError, match=message):
            unpack_blocks(bytes.fromhex(text), 0)
    with pytest.raises(ValueError, match=r"513 octets|block index"):
        unpack_blocks(pack_blocks((*range(0, MAX_BLOCKS, 2), MAX_BLOCKS)), 0)


@settings(max_examples=200, deadline=None)
@given(st.sets(st.integers(0, 400)))
def test_block_runs_round_trip(blocks: set[int]) -> None:
    expected = tuple(sorted(blocks))
    data = pack_blocks(expected)
    assert unpack_blocks(b"xy" + data + b"z", 2) == (expected, 2 + len(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_record_or_an_error(data: bytes) -> None:
    try:
        record = StepRecord.unpack(data)
    except RunFileError:
        return
    again = StepRecord.unpack(record.pack())
    assert again == record


def test_records_refuse_what_they_cannot_hold() -> None:
    one = np.ones((2, 1))
    with pytest.raises(UsageError, match="step must be 0"):
        StepRecord(-1, 0, 0.1, (), one)
    with pytest.raises(UsageError, match="seed must be 0"):
        StepRecord(0, 2**64, 0.1, (), one)
    with pytest.raises(UsageError, match="blocks must ascend"):
        StepRecord(0, 0, 0.1, (3, 2), one)
    with pytest.raises(UsageError, match=r"losses must be \(probes, rows\)"):
        StepRecord(0, 0, 0.1, (), np.ones(2))


def test_records_hold_what_float32_holds() -> None:
    record = StepRecord(0, 0, 0.1, (), np.array([[0.1]]))
    assert record.lr == np.float32(0.1)
    assert record.losses.dtype == np.float32
    assert record == StepRecord.unpack(record.pack())
    assert len({record, StepRecord.unpack(record.pack())}) == 1


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**64 - 1])
def test_counts_round_trip(value: int) -> None:
    data = pack_count(value)
    assert len(data) == max(1, -(-value.bit_length() // 7))
    assert unpack_count(b"x" + data + b"y", 1) == (value, 1 + len(data))


def test_counts_have_one_form() -> None:
    for text in (
        "80 00",
        "ff 00",
        "ff ff ff ff ff ff ff ff ff 02",
        "80 80 80 80 80 80 80 80 80 80",
    ):
        with pytest.raises(ValueError, match="an integer"):
            unpack_count(bytes.fromhex(text), 0)
    with pytest.raises(IndexError):
        unpack_count(b"\x80", 0)


@pytest.mark.parametrize(("gradient", "rows"), [(b"", 0), (b"abcd", 0), (b"", 5), (b"abcd", 300)])
def test_extra_bytes_round_trip(gradient: bytes, rows: int) -> None:
    extra = RecordExtra(12.3456, gradient, rows)
    found = RecordExtra.unpack(extra.pack(), len(gradient))
    assert found == RecordExtra(12.345, gradient, rows)
    assert RecordExtra(1e9, b"", 0).pack() == b"\xff" * 4


def test_extra_bytes_of_another_length() -> None:
    data = RecordExtra(1.0, b"abcd", 5).pack()
    for given_bytes, length, message in (
        (data, 40, "gradient has 5 bytes in the journal, expected 40"),
        (data + b"!", 4, "bytes too many"),
        (data[:-1] + b"\x00", 4, "bytes too many"),
        (data[:-1] + b"\x80", 4, "count of examples is damaged"),
    ):
        with pytest.raises(RunFileError, match=message):
            RecordExtra.unpack(given_bytes, length)
