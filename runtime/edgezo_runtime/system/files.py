"""Durable files: even after a power cut, a reader finds the whole old file or the whole new one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

TEMPORARY = ".*.edgezo-tmp"
"""Pattern of the names of unfinished files."""

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


_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def open_descriptor(path: str | Path, flags: int, *, follow: bool = True) -> int:
    """Open a regular file.

    Args:
        path: the file.
        flags: as for `os.open`.
        follow: may the name be a link? Use False for files that edgezo changes in place.
    Returns:
        The descriptor; the caller closes it.
    Raises:
        OSError: it cannot be opened, or is a pipe, a device, a folder, or a link.
    """
    try:
        descriptor = os.open(path, flags | _NONBLOCK | (0 if follow else _NO_LINK), _NEW_FILE_MODE)
    except OSError as error:
        if not follow and os.path.islink(path):
            raise OSError(errno.ELOOP, "it is a link", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return descriptor


def open_regular(path: str | Path, mode: str = "rb", *, follow: bool = True) -> FileIO:
    """Open a regular file, without a buffer.

    Args:
        path: the file.
        mode: as for `FileIO`.
        follow: as for `open_descriptor`.
    Raises:
        OSError: as for `open_descriptor`.
    """
    return FileIO(
        str(path),
        mode,
        opener=lambda name, flags: open_descriptor(name, flags, follow=follow),
    )


def read_regular(path: str | Path, limit: int, *, follow: bool = True) -> bytes:
    """Read a small file as a whole.

    Args:
        path: the file.
        limit: bytes it may have.
        follow: as for `open_descriptor`.
    Raises:
        OSError: as for `open_descriptor`, or the file is longer than `limit`, or grows beyond it
            while it is read.
    Memory:
        The file.
    """
    with open_regular(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1) if size <= limit else b""
        while size < len(data) <= limit and (more := file.read(limit + 1 - len(data))):
            data += more  # it grows while it is read
    if max(size, len(data)) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
    return data


_READ_BYTES = 1 << 20


Progress = Callable[[int], None]
"""Called with the number of bytes read since the last call."""


def sha256_file(path: Path, progress: Progress | None = None) -> str:
    """SHA-256 of a file as lower-case hex.

    Args:
        path: the file.
        progress: called after every read.
    Raises:
        OSError: the file cannot be read.
    Memory:
        1 MiB.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_READ_BYTES))
    with open_regular(path) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            if progress is not None:
                progress(count)
    return digest.hexdigest()
