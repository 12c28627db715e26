"""The system's cache of a file: fill, empty and inspect it. Linux only."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

import numpy as np

_PIECE_BYTES = 4 << 20
_MAX_LEFT = 0.01
"""Share of a file that may still be cached when it counts as evicted."""


def read_through(path: Path) -> float:
    """Read a file from beginning to end, so that it is cached.

    Returns:
        Bytes per second: the disk's rate if nothing was cached.
    """
    piece = memoryview(bytearray(_PIECE_BYTES))
    started = time.perf_counter()
    size = 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            size += count
    return size / (time.perf_counter() - started)


def evict(path: Path) -> None:
    """Drop a file from the system's cache.

    Raises:
        RuntimeError: it is still cached, for example because a process has pages of it mapped.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())  # what is not written yet would stay
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    left = cached_share(path)
    if left > _MAX_LEFT:
        raise RuntimeError(f"{path}: {left:.0%} is still cached; does a process use it?")


def cached_share(path: Path) -> float:
    """How much of a file is cached, 0 to 1."""
    with path.open("rb") as file:
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    pages = np.empty(-(-mapped.size // mmap.PAGESIZE), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mincore(
        ctypes.c_void_p(mapped.ctypes.data),
        ctypes.c_size_t(mapped.size),
        ctypes.c_void_p(pages.ctypes.data),
    ):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(path))
    return float((pages & 1).mean())


def disk_bytes() -> int:
    """What this process has made the disk read so far, read-ahead included; 0 without /proc."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))
