"""Opens files that are files: no pipe that waits for a writer, no device, no more than was asked.

A name in a folder of a stranger may be a pipe or a device, or a link to a file that has nothing to
do with edgezo. What was opened is looked at, not the name: that could change in between.
"""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO
from pathlib import Path

_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NEW_FILE_MODE = 0o644


def open_descriptor(path: str | Path, flags: int, *, follow: bool = True) -> int:
    """Open a regular file.

    Args:
        path: the file.
        flags: as for `os.open`.
        follow: may the name be a link? Files that edgezo writes to where they lie may not.
    Returns:
        The descriptor; the caller closes it.
    Raises:
        OSError: it cannot be opened, or is a pipe, a device, a folder, or a link.
    """
    try:
        descriptor = os.open(path, flags | _AT_ONCE | (0 if follow else _NO_LINK), _NEW_FILE_MODE)
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
        OSError: as for `open_descriptor`, or it is longer than `limit`, however long it was when
            it was opened.
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
