"""Files that gzip packed, read with a limit on what they unpack to."""

from __future__ import annotations

import gzip
import os
import zlib
from io import BufferedReader, RawIOBase
from typing import TYPE_CHECKING, Any

from edgezo_runtime.errors import DataError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

GZIP_START = b"\x1f\x8b"

_MOST_TIMES = 200
_ALWAYS_BYTES = 64 * 2**20


class UnpackedFile(RawIOBase):
    """The content of a packed file.

    Text gets about ten times as long when it is unpacked. A file of a thousand times its size was
    made to fill memory.
    """

    def __init__(self, file: BufferedReader[Any], name: str) -> None:
        """Read from an open file.

        Args:
            file: the packed file.
            name: of the file, for messages.
        """
        self._name = name
        self._most = max(_ALWAYS_BYTES, _MOST_TIMES * os.fstat(file.fileno()).st_size)
        self._bytes = 0
        self._file = gzip.GzipFile(fileobj=file)

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read the next bytes.

        Raises:
            DataError: the file is damaged, or unpacks to too much.
        """
        try:
            count = self._file.readinto(buffer)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{self._name}: damaged gzip file: {error}; pack or download it again"
            ) from error
        self._bytes += count
        if self._bytes > self._most:
            raise DataError(
                f"{self._name}: unpacks to more than {self._most} bytes, {_MOST_TIMES} times its "
                "size; unpack it with gunzip if you trust it"
            )
        return count
