"""Locks on open files; they end with the process."""

from __future__ import annotations

import errno
import os
import sys

HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
"""Errors of `lock` where another process has the lock."""


def lock(descriptor: int) -> None:
    """Lock a file for this process without waiting.

    Raises:
        OSError: another process has it, or the file system has no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def unlock(descriptor: int) -> None:
    """Unlock a file, even if another process shares its descriptor."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)
