"""Durable files: a reader finds the old file or the new one, never half of it, power cut or not."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".*.edgezo-tmp"
"""Names of files that were not finished, as a pattern."""

_NEW_FILE_MODE = 0o644


def sync_descriptor(descriptor: int) -> None:
    """Wait until what was written to an open file is on the disk itself.

    Args:
        descriptor: an open file descriptor.

    Raises:
        OSError: the disk did not take it.
    """
    if sys.platform == "darwin":  # there, fsync leaves data in the drive's own cache
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_directory(path: str | Path) -> None:
    """Make the names in a directory durable: new files, renames, removals.

    Does nothing on Windows, where a directory cannot be opened for this.

    Args:
        path: the directory.

    Raises:
        OSError: it does not exist, or the disk did not take it.
    """
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give the name of a temporary file that becomes `path` when the block ends well.

    On leaving: fsync of the file, rename over `path`, fsync of the directory. If the block
    raises, the temporary file is removed and `path` is as it was.

    Args:
        path: the file to make or replace; its directory must exist.

    Yields:
        The temporary file, empty, in the same directory.

    Raises:
        OSError: a write, the rename or an fsync failed.
    """
    target = Path(path)
    descriptor, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.name[:100]}.", suffix=TEMPORARY[2:]
    )
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(_mode_for(target))  # mkstemp's 0600 would hide the file from others
        with open(temporary, "rb+") as file:
            sync_descriptor(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def atomic_write(path: str | Path, data: bytes) -> None:
    """Write a whole file, atomically and durably.

    Args:
        path: the file to make or replace; its directory must exist.
        data: its bytes.

    Raises:
        OSError: as for `atomic_path`.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _mode_for(target: Path) -> int:
    """Keep the permissions of the file that is replaced."""
    try:
        return target.stat().st_mode & 0o777
    except FileNotFoundError:
        return _NEW_FILE_MODE
