"""Records of an append-only file, each framed by its length and a checksum.

    frame = 0xE2 | length u32 | crc32 u32 of (length, body) | body

All integers are little-endian. What a frame at the end that is not whole means depends on when the
file was synced: the journal and the file of examples say it for themselves.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from io import FileIO
from typing import BinaryIO

_MARKER = 0xE2
FRAME = struct.Struct("<BII")  # marker, length of the body, crc32
MAX_BODY = 2**26
_CRC = struct.Struct("<I")
_PIECE_BYTES = 2**20
SEARCH_BYTES = 2**30
_MOST_MARKERS = 2**21  # of what a cut leaves, one in 256 bytes
_READ_BYTES = 2**12  # what going to another place costs, as bytes


def pack_record(body: bytes) -> bytes:
    """A body with its frame."""
    return FRAME.pack(_MARKER, len(body), _crc(body)) + body


def write_whole(file: FileIO, data: bytes) -> None:
    """Write all of some bytes to a file without a buffer.

    Raises:
        OSError: the disk did not take them, or a part of them only.
    """
    written = 0
    while written < len(data):
        written += file.write(data[written:])


def read_body(file: BinaryIO, offset: int, size: int) -> bytes | None:
    """Read the record at `offset` of a file of `size` bytes; None if there is no whole one."""
    file.seek(offset)
    frame = file.read(FRAME.size)
    if len(frame) < FRAME.size:
        return None
    marker, length, crc = FRAME.unpack(frame)
    if marker != _MARKER or not 0 < length <= min(MAX_BODY, size - offset - FRAME.size):
        return None
    body = file.read(length)
    return body if len(body) == length and _crc(body) == crc else None


class RecordSearchError(Exception):
    """Too much looks like a record."""


def find_whole(
    file: BinaryIO,
    bad: int,
    size: int,
    starts: tuple[int, int],
    fitting: Callable[[bytes, int], int],
) -> int | None:
    """Look for a whole record behind a bad one.

    What only looks like a frame is almost never so, and costs no checksum.

    Args:
        file: the file.
        bad: where the bad record is.
        size: of the file.
        starts: bytes of a frame, from its marker on, that tell whether it may be a record: at
            least, and at most.
        fitting: given these and the bytes between the bad record and them, tells how long the body
            is; 0 where it can be none.
    Returns:
        Where the first one lies; None if there is none.
    Raises:
        RecordSearchError: too much had to be read, as where a file was made to look so all over.
    """
    left = SEARCH_BYTES
    for number, (at, frame) in enumerate(_find_frames(file, bad + 1, size, starts)):
        length = fitting(frame, at - bad)
        left -= min(length, size - at) + (_READ_BYTES if length else 0)
        if left < 0 or number >= _MOST_MARKERS:
            raise RecordSearchError
        if length and read_body(file, at, size) is not None:
            return at
    return None


def _find_frames(
    file: BinaryIO, start: int, end: int, starts: tuple[int, int]
) -> Iterator[tuple[int, bytes]]:
    """Where a frame may begin, and its first bytes; of the last of the file there may be fewer."""
    shortest, longest = starts
    while end - start >= shortest:
        file.seek(start)
        piece = file.read(min(_PIECE_BYTES + longest - 1, end - start))
        if len(piece) < shortest:
            return
        scanned = min(_PIECE_BYTES, len(piece) - shortest + 1)
        at = piece.find(_MARKER, 0, scanned)
        while at >= 0:
            yield start + at, piece[at : at + longest]
            at = piece.find(_MARKER, at + 1, scanned)
        start += scanned


def _crc(body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_CRC.pack(len(body))))
