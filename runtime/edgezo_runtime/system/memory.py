"""Memory of this process, and memory that the machine has left, without psutil.

On Linux the figures come from /proc and the control groups. Elsewhere the standard library knows
only the peak, which is never below the truth, so `rss_bytes` returns that.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from edgezo_runtime.errors import EdgezoError
from edgezo_runtime.system.control_groups import group_rooms, lowest_limit
from edgezo_runtime.system.kernel_files import kib_line, read_kernel_text

_ROOT = Path("/")


def release_freed() -> None:
    """Collect garbage, and return freed memory to the system.

    Parsing a tokenizer and a data set leaves about 24 MB of freed memory in the heap.
    """
    import gc

    gc.collect()
    trim_heap()


def trim_heap() -> None:
    """Return freed memory from the C library to the system; does nothing without glibc."""
    import ctypes

    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return
    trim(0)


def save_addresses() -> None:
    """Let all threads share one heap if `ulimit -v` is set and the C library supports that.

    Otherwise glibc reserves 64 MB of addresses per thread.
    """
    import ctypes

    if address_space_limit() is None:
        return
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    except (OSError, AttributeError, TypeError):
        return


def return_large_blocks() -> None:
    """Have the C library return memory to the system as soon as `LARGE_BLOCK` or more is free.

    Left to itself glibc raises this bound to the largest block that was ever freed, up to 32 MB,
    and keeps twice as much at the end of the heap of every thread, which `malloc_trim` does not
    release. Then what a process keeps depends on which thread allocated what, and when. Does
    nothing without glibc.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)
    mallopt(_M_TRIM_THRESHOLD, LARGE_BLOCK)


LARGE_BLOCK = 1 << 20
"""Bytes of a block that the system gets back when it is freed; see `return_large_blocks`."""

_M_ARENA_MAX = -8
_M_MMAP_THRESHOLD = -3
_M_TRIM_THRESHOLD = -1


def is_unmapped(error: Exception) -> bool:
    """Was there no memory, or no addresses, to load a library or map a file?"""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, ImportError) and any(text in str(error) for text in _UNMAPPED)


_UNMAPPED = (
    "failed to map segment",
    "cannot allocate memory",
    "Cannot allocate memory",
    "bad_alloc",
)
"""How the dynamic linker and onnxruntime report it."""


def rss_bytes(*, root: Path = _ROOT) -> int:
    """Resident memory of this process now, file pages included, in bytes.

    Args:
        root: folder that holds /proc; only tests change it.

    Raises:
        EdgezoError: the system reports neither this nor the peak.
    """
    value = kib_line(root / "proc/self/status", "VmRSS:")
    return peak_rss_bytes(root=root) if value is None else value


def resident_bytes() -> int:
    """Memory of this process now, in bytes.

    It is `rss_bytes`, read from a shorter file. On a board with unified memory, memory that the
    graphics driver holds for the process is added.
    """
    pages = _statm()
    own = rss_bytes() if pages is None else pages[0]
    return own + device_bytes() if _unified() else own


def anonymous_bytes() -> int:
    """Resident memory of this process without file pages, in bytes.

    All resident memory where the system does not tell the two apart.
    """
    pages = _statm()
    return rss_bytes() if pages is None else pages[0] - pages[1]


def _statm() -> tuple[int, int] | None:
    """Resident bytes, and how many of them are file pages; None where there is no /proc."""
    try:
        import resource

        _, resident, shared, *_ = _STATM.read_bytes().split()
        return int(resident) * resource.getpagesize(), int(shared) * resource.getpagesize()
    except (OSError, ImportError, ValueError):
        return None


_STATM = Path("/proc/self/statm")


def swapped_bytes(*, root: Path = _ROOT) -> int:
    """Memory of this process that was swapped out, in bytes; 0 where the system does not report it.

    Args:
        root: folder that holds /proc; only tests change it.
    """
    return kib_line(root / "proc/self/status", "VmSwap:") or 0


def is_unified(*, root: Path = _ROOT) -> bool:
    """Do the processor and the graphics device share one memory, as on a Jetson board?

    Args:
        root: folder that holds /proc and /etc; only tests change it.
    """
    model = (read_kernel_text(root / "proc/device-tree/model") or "").lower()
    return "jetson" in model or (root / "etc/nv_tegra_release").exists()


@functools.cache
def _unified() -> bool:
    return is_unified()


def device_bytes(*, root: Path = _ROOT) -> int:
    """Memory that this process took through the graphics driver of a board with unified memory.

    The resident memory does not include it, although both use the same chips. The driver lists it
    by process.

    Args:
        root: folder that holds /sys; only tests change it.

    Returns:
        0 on other machines, and where the list of the driver cannot be read.
    """
    own = str(os.getpid())
    for line in (read_kernel_text(root / _NVMAP) or "").splitlines():
        fields = line.split()  # CLIENT PROCESS PID SIZE, the size as in 1536K
        if len(fields) == 4 and fields[2] == own and fields[3][:-1].isdigit():
            return int(fields[3][:-1]) * 1024
    return 0


_NVMAP = "sys/kernel/debug/nvmap/iovmm/clients"


def peak_rss_bytes(*, root: Path = _ROOT) -> int:
    """Largest resident memory of this process so far, in bytes.

    It is VmHWM if there is one. Otherwise it is the figure of getrusage, which on Linux also
    includes the parent process up to exec.

    Args:
        root: folder that holds /proc; only tests change it.

    Raises:
        EdgezoError: the system reports neither.
    """
    value = kib_line(root / "proc/self/status", "VmHWM:")
    if value is not None:
        return value
    try:
        import resource
    except ImportError as error:
        raise EdgezoError(
            f"cannot measure memory on {sys.platform}: neither /proc nor getrusage is there; "
            "run edgezo on Linux or macOS, or in WSL"
        ) from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes(*, root: Path = _ROOT) -> int:
    """Memory that can still be used without swapping, in bytes.

    The smallest of MemAvailable, the room in every control group above this process (version 2, or
    the memory controller of version 1), and the room under `ulimit -v` and `ulimit -d`. File pages
    of a group count as free, as they do in MemAvailable. Without /proc/meminfo it is the whole
    physical memory.

    Args:
        root: folder that holds /proc and /sys; only tests change it.

    Raises:
        EdgezoError: the system reports nothing about its memory.
    """
    machine = kib_line(root / "proc/meminfo", "MemAvailable:")
    if machine is None:
        machine = _physical_bytes()
    return max(0, min([machine, *group_rooms(root), *_ulimit_rooms(root)]))


def total_bytes(*, root: Path = _ROOT) -> int:
    """Memory of the machine, or the limit of a control group if that is lower.

    Args:
        root: folder that holds /proc and /sys; only tests change it.

    Raises:
        EdgezoError: the system reports nothing about its memory.
    """
    machine = kib_line(root / "proc/meminfo", "MemTotal:") or _physical_bytes()
    limit = limit_bytes(root=root)
    return machine if limit is None else min(machine, limit)


def limit_bytes(*, root: Path = _ROOT) -> int | None:
    """The lowest memory limit of the control groups above this process, in bytes.

    Args:
        root: folder that holds /proc and /sys; only tests change it.

    Returns:
        None if no group has a limit.
    """
    return lowest_limit(root)


def _physical_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError) as error:
        raise EdgezoError(
            f"cannot find the available memory on {sys.platform}; give `budget` in bytes, "
            "such as 8GB"
        ) from error


def address_space_limit() -> int | None:
    """Bytes of addresses that this process may have (`ulimit -v`); None without a limit."""
    return _ulimit("RLIMIT_AS")


def data_limit() -> int | None:
    """Bytes of data that this process may have (`ulimit -d`); None without a limit."""
    return _ulimit("RLIMIT_DATA")


def tells_resident() -> bool:
    """Does the system report the resident memory, and the memory that is left?"""
    return _statm() is not None


def tells_device(*, root: Path = _ROOT) -> bool:
    """Can this process read how much memory the graphics driver holds?"""
    return read_kernel_text(root / _NVMAP) is not None


def _ulimit(name: str) -> int | None:
    try:
        import resource

        soft, _ = resource.getrlimit(getattr(resource, name))
    except (ImportError, AttributeError, ValueError, OSError):
        return None
    return None if soft == resource.RLIM_INFINITY else soft


def _ulimit_rooms(root: Path) -> Iterator[int]:
    """Bytes left under the limits on addresses and on data."""
    for name, key in (("RLIMIT_AS", "VmSize:"), ("RLIMIT_DATA", "VmData:")):
        limit, used = _ulimit(name), kib_line(root / "proc/self/status", key)
        if limit is not None and used is not None:
            yield limit - used
