"""Records of an append-only file: each has its length and a checksum in front.

    record = 0xE2 | length u32 | crc32 u32 of (length, body) | body

All integers are little-endian. `journal/record_log.py` decides how a record that is not whole is
treated.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from typing import BinaryIO

_MARKER = 0xE2
RECORD_PREFIX = struct.Struct("<BII")  # marker, length of the body, crc32
MAX_BODY = 2**26
_CRC = struct.Struct("<I")
_SCAN_BYTES = 2**20
SEARCH_BYTES = 2**30
_MAX_MARKERS = 2**21  # random bytes hold one marker in 256 bytes
_READ_COST_BYTES = 2**12  # the cost of a seek, expressed in bytes


def pack_record(body: bytes) -> bytes:
    """Return a body with its prefix."""
    return RECORD_PREFIX.pack(_MARKER, len(body), _crc(body)) + body


def write_whole(file: FileIO, data: bytes) -> None:
    """Write all of some bytes to an unbuffered file.

    Raises:
        OSError: the disk took none of them, or only a part.
    """
    written = 0
    while written < len(data):
        written += file.write(data[written:])


def read_body(file: BinaryIO, offset: int, size: int) -> bytes | None:
    """Read the body of the record at `offset` of a file of `size` bytes.

    Returns:
        None if no whole record begins there.
    """
    file.seek(offset)
    prefix = file.read(RECORD_PREFIX.size)
    if len(prefix) < RECORD_PREFIX.size:
        return None
    marker, length, crc = RECORD_PREFIX.unpack(prefix)
    if marker != _MARKER or not 0 < length <= min(MAX_BODY, size - offset - RECORD_PREFIX.size):
        return None
    body = file.read(length)
    return body if len(body) == length and _crc(body) == crc else None


class RecordSearchError(Exception):
    """Too many bytes look like the beginning of a record."""


@dataclass(frozen=True, slots=True)
class BodyStart:
    """The first bytes of a body, by which most of what only looks like a record is ruled out.

    Attributes:
        shortest: bytes that `fits` needs.
        longest: bytes that `fits` is given, unless the file ends before.
        fits: takes these bytes and the distance from the bad record to this one; tells whether the
            file can have such a record there.
    """

    shortest: int
    longest: int
    fits: Callable[[bytes, int], bool]


def find_whole(file: BinaryIO, bad: int, size: int, start: BodyStart) -> int | None:
    """Find the first whole record behind a bad one.

    A marker is almost never followed by the start of a body that fits. So most markers cost no
    checksum.

    Args:
        file: the file.
        bad: offset of the bad record.
        size: bytes of the file.
        start: rules out what only looks like a record.
    Returns:
        Offset of the record; None if there is none.
    Raises:
        RecordSearchError: too much had to be read, as in a file made to look like records all over.
    """
    left = SEARCH_BYTES
    for number, (at, head) in enumerate(_candidates(file, bad + 1, size, start)):
        _, length, _ = RECORD_PREFIX.unpack_from(head)
        fits = 0 < length <= MAX_BODY and start.fits(head[RECORD_PREFIX.size :], at - bad)
        left -= min(length, size - at) + _READ_COST_BYTES if fits else 0
        if left < 0 or number >= _MAX_MARKERS:
            raise RecordSearchError
        if fits and read_body(file, at, size) is not None:
            return at
    return None


def _candidates(
    file: BinaryIO, position: int, end: int, start: BodyStart
) -> Iterator[tuple[int, bytes]]:
    """Offset of each marker, with the prefix and the start of the body that may follow it."""
    shortest, longest = (RECORD_PREFIX.size + n for n in (start.shortest, start.longest))
    while end - position >= shortest:
        file.seek(position)
        window = file.read(min(_SCAN_BYTES + longest - 1, end - position))
        if len(window) < shortest:
            return
        scanned = min(_SCAN_BYTES, len(window) - shortest + 1)
        at = window.find(_MARKER, 0, scanned)
        while at >= 0:
            yield position + at, window[at : at + longest]
            at = window.find(_MARKER, at + 1, scanned)
        position += scanned


def _crc(body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_CRC.pack(len(body))))
