"""The command line in processes that may have only so much memory: ulimit, control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.edgezo.conftest import ROOT

GROUPS = Path("/sys/fs/cgroup")


def launch(
    args: list[object], cwd: Path, limit: Callable[[], None]
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end.

    Args:
        args: of the command line.
        cwd: where.
        limit: called in the child before it begins.
    """
    paths = [ROOT, ROOT / "export", ROOT / "runtime"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-m", "edgezo", *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, preexec_fn=limit, timeout=300
    )


def address_space(size: int) -> Callable[[], None]:
    """What sets `ulimit -v`, in bytes."""

    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    return limit


@dataclass(frozen=True, slots=True)
class Group:
    """A control group with a memory limit.

    Attributes:
        folder: its files.
        limit_bytes: the limit.
    """

    folder: Path
    limit_bytes: int

    def enter(self) -> None:
        """Put this process into it."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def kills(self) -> int:
        """Processes that the kernel ended in it."""
        for name in ("memory.oom_control", "memory.events"):
            if (self.folder / name).exists():
                lines = (self.folder / name).read_text().splitlines()
                return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        return 0


@contextmanager
def control_group(limit_bytes: int) -> Iterator[Group]:
    """A new group; skips the test where none can be made."""
    first = (GROUPS / "memory", "memory.limit_in_bytes")
    for root, name in (first, (GROUPS, "memory.max")):
        folder = root / f"edgezo-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / name).write_text(str(limit_bytes))
        except OSError:
            folder.rmdir()
            continue
        try:
            yield Group(folder, limit_bytes)
        finally:
            folder.rmdir()
        return
    pytest.skip("no control group with a memory limit can be made here")
