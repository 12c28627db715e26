"""SHA-256 of files, read in pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from edgezo_runtime.regular_file import open_regular

_PIECE_BYTES = 1 << 20

Progress = Callable[[int], None]
"""Told the number of bytes read since the last call."""


def sha256_file(path: Path, progress: Progress | None = None) -> str:
    """SHA-256 of a file as lower-case hex.

    Args:
        path: the file.
        progress: called after every piece.
    Raises:
        OSError: the file cannot be read.
    Memory:
        One piece of 1 MiB.
    """
    digest = hashlib.sha256()
    piece = memoryview(bytearray(_PIECE_BYTES))
    with open_regular(path) as file:
        while count := file.readinto(piece):
            digest.update(piece[:count])
            if progress is not None:
                progress(count)
    return digest.hexdigest()
