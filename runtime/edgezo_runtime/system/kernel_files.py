"""Short text files of the kernel, in /proc and /sys."""

from __future__ import annotations

from pathlib import Path


def read_kernel_text(path: Path) -> str | None:
    """The text of a file; None if it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None


def kib_line(path: Path, key: str) -> int | None:
    """The value of a line such as "VmRSS:  123 kB", in bytes; None if there is no such line."""
    for line in (read_kernel_text(path) or "").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return None
