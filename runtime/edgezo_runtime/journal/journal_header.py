"""The first bytes of a journal: format, version, and what the journal belongs to."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.system.typed_json import LONGEST_TEXT, JsonShapeError, parse_object

JOURNAL_VERSION = 2
_MAGIC = b"\x89EZJ\r\n\x1a\n"
_PREFIX = struct.Struct("<8sII")  # magic, version, length of the JSON
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class JournalHeader:
    """What a journal belongs to.

    Attributes:
        meta: JSON values of the run: digests of the configuration and the bundle, the seed, ...
        version: of the format.
    """

    meta: Mapping[str, Any]
    version: int = JOURNAL_VERSION

    def pack(self) -> bytes:
        """Return the first bytes of a journal.

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


def read_journal_header(file: BinaryIO, path: str | Path) -> JournalHeader:
    """Read the header of a journal; the file is then at the first record.

    Args:
        file: the journal, at its beginning.
        path: its path, for the message.

    Raises:
        RunFileError: the file is no journal, has another version, or its header is damaged.
    """
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
