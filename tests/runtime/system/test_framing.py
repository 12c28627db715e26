"""Records of a file: pinned bytes, and whole records behind damage."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import pytest

from edgezo_runtime.system.files import open_regular
from edgezo_runtime.system.framing import (
    MAX_BODY,
    RECORD_PREFIX,
    BodyStart,
    RecordSearchError,
    find_whole,
    pack_record,
    read_body,
    write_whole,
)

ANY = BodyStart(1, 1, lambda start, distance: True)


def test_the_bytes_are_pinned() -> None:
    crc = zlib.crc32(b"\x03\0\0\0abc")
    assert pack_record(b"abc") == b"\xe2\x03\0\0\0" + struct.pack("<I", crc) + b"abc"
    assert len(pack_record(b"abc")) == RECORD_PREFIX.size + 3


def test_a_record_is_read_where_it_begins() -> None:
    data = pack_record(b"one") + pack_record(b"three")
    first = len(pack_record(b"one"))
    assert read_body(BytesIO(data), 0, len(data)) == b"one"
    assert read_body(BytesIO(data), first, len(data)) == b"three"
    assert read_body(BytesIO(data), 1, len(data)) is None
    assert read_body(BytesIO(data), first, len(data) - 1) is None
    for at in range(first):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert read_body(BytesIO(changed), 0, len(data)) is None
    empty = struct.pack("<BII", 0xE2, 0, zlib.crc32(bytes(4)))
    assert read_body(BytesIO(empty), 0, len(empty)) is None


def test_a_whole_record_behind_damage_is_found() -> None:
    junk = b"\xe2" * 20 + b"?" * 7
    data = junk + pack_record(b"found")
    assert find_whole(BytesIO(data), 0, len(data), ANY) == len(junk)
    assert find_whole(BytesIO(data), 0, len(data) - 1, ANY) is None
    # The bad record itself is not looked at again.
    assert find_whole(BytesIO(data), len(junk), len(data), ANY) is None


def test_what_does_not_fit_is_passed_over() -> None:
    data = b"?" + pack_record(b"a") + b"??" + pack_record(b"b")
    second = data.rindex(b"\xe2", 0, -10 + RECORD_PREFIX.size)
    seen: list[tuple[bytes, int]] = []

    def fits(start: bytes, distance: int) -> bool:
        seen.append((start, distance))
        return start == b"b"

    assert find_whole(BytesIO(data), 0, len(data), BodyStart(1, 1, fits)) == second
    assert seen[0] == (b"a", 1)
    assert seen[-1] == (b"b", second)


def test_a_search_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgezo_runtime.system.framing._MAX_MARKERS", 100)
    data = b"?" + b"\xe2" * 200
    with pytest.raises(RecordSearchError):
        find_whole(BytesIO(data), 0, len(data), ANY)
    monkeypatch.undo()
    monkeypatch.setattr("edgezo_runtime.system.framing.SEARCH_BYTES", 1000)
    data = b"?" + struct.pack("<BII", 0xE2, MAX_BODY, 0) + bytes(2000)
    with pytest.raises(RecordSearchError):
        find_whole(BytesIO(data), 0, len(data), ANY)


def test_short_writes_are_completed(tmp_path: Path) -> None:
    class Short:
        def __init__(self) -> None:
            self.taken = b""

        def write(self, data: bytes) -> int:
            self.taken += data[:3]
            return len(data[:3])

    short = Short()
    write_whole(short, b"0123456789")  # type: ignore[arg-type]
    assert short.taken == b"0123456789"
    with open_regular(tmp_path / "f", "ab") as file:
        write_whole(file, b"abc")
    assert (tmp_path / "f").read_bytes() == b"abc"
