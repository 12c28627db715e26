"""Memory limits of the control groups (version 1 and 2) that this process is in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from edgezo_runtime.system.kernel_files import read_kernel_text

_NO_LIMIT = 1 << 60
"""Where there is no limit, version 1 of the control groups writes a number beyond this."""


def lowest_limit(root: Path) -> int | None:
    """The lowest limit in bytes; None if no group has one."""
    limits = [
        int(text)
        for folder, names in _groups(root)
        if (text := (read_kernel_text(folder / names[0]) or "").strip()).isdigit()
    ]
    return min((limit for limit in limits if limit < _NO_LIMIT), default=None)


def group_rooms(root: Path) -> Iterator[int]:
    """Bytes left in each limited control group this process is in."""
    for folder, names in _groups(root):
        room = _room(folder, *names)
        if room is not None:
            yield room


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Folder of each control group above this process, with the names of its files.

    The names are those of the limit and of the usage, and the prefix of names in memory.stat.
    """
    for line in (read_kernel_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            mount = root / "sys/fs/cgroup"
            names = ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        for folder in _with_parents(mount, group):
            yield folder, names


def _with_parents(mount: Path, group: str) -> Iterator[Path]:
    """The folders of a group and of those above it; inside a container some are not visible."""
    inner = PurePosixPath("/", group)
    for level in (inner, *inner.parents):
        yield mount.joinpath(*level.parts[1:])


def _room(folder: Path, limit_name: str, usage_name: str, prefix: str) -> int | None:
    limit, usage = read_kernel_text(folder / limit_name), read_kernel_text(folder / usage_name)
    if limit is None or usage is None or not limit.strip().isdigit():  # "max" is no limit
        return None
    room = int(limit) - int(usage)
    reclaimable = {f"{prefix}inactive_file", f"{prefix}active_file"}
    for line in (read_kernel_text(folder / "memory.stat") or "").splitlines():
        name, _, size = line.partition(" ")
        if name in reclaimable:
            room += int(size)
    return room
