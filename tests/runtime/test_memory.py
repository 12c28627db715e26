"""Memory: this process, and machines made of files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgezo_runtime import memory
from edgezo_runtime.memory import available_bytes, peak_rss_bytes, rss_bytes

MIB = 2**20
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


FOLLOW = """
import numpy as np
from edgezo_runtime.memory import peak_rss_bytes, rss_bytes
before = rss_bytes()
block = np.ones(64 * 2**20, np.uint8)
print(rss_bytes() - before, peak_rss_bytes() - rss_bytes())
del block
print(rss_bytes() - before, peak_rss_bytes() - before)
"""


@LINUX
def test_rss_and_peak_follow_an_allocation() -> None:
    """In a process of its own: here, what other tests freed may be reused or handed back."""
    root = Path(memory.__file__).parents[1]
    command = [sys.executable, "-c", FOLLOW]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    grown, above, left, peak = (int(word) for word in output.stdout.split())
    assert 60 * MIB < grown < 68 * MIB
    assert above >= -MIB
    assert left < 4 * MIB
    assert peak > 60 * MIB


@LINUX
def test_available_is_within_the_machine() -> None:
    assert 0 < available_bytes() <= memory._physical_bytes()


def test_status_lines_are_kib(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/self/status": "Name:\tx\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\n"})
    assert rss_bytes(root=root) == 200 * 1024
    assert peak_rss_bytes(root=root) == 300 * 1024


def test_without_proc_the_peak_of_getrusage_is_taken(tmp_path: Path) -> None:
    assert rss_bytes(root=tmp_path) > MIB
    assert peak_rss_bytes(root=tmp_path) > MIB
    assert available_bytes(root=tmp_path) == memory._physical_bytes()


MEMINFO = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n"}


def test_without_groups_mem_available_counts(tmp_path: Path) -> None:
    assert available_bytes(root=write(tmp_path, MEMINFO)) == 8000 * 1024


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("max", "max", 8000 * 1024),
        ("5000000", "max", 5000000 - 1000000 + 200000),
        ("max", "4000000", 4000000 - 3000000 + 0),
        ("5000000", "4000000", 1000000),
        ("900000", "max", 100000),  # above its limit, but file pages can go
        ("700000", "max", 0),  # never negative
    ],
)
def test_group_limits_version_2(tmp_path: Path, inner: str, outer: str, expected: int) -> None:
    files = MEMINFO | {
        "proc/self/cgroup": "0::/outer/inner\n",
        "sys/fs/cgroup/outer/inner/memory.max": f"{inner}\n",
        "sys/fs/cgroup/outer/inner/memory.current": "1000000\n",
        "sys/fs/cgroup/outer/inner/memory.stat": "active_file 7\ninactive_file 200000\n",
        "sys/fs/cgroup/outer/memory.max": f"{outer}\n",
        "sys/fs/cgroup/outer/memory.current": "3000000\n",
    }
    assert available_bytes(root=write(tmp_path, files)) == expected


def test_group_limits_version_1(tmp_path: Path) -> None:
    files = MEMINFO | {
        "proc/self/cgroup": "5:cpu:/\n4:memory:/not/visible/here\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000000\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000000\n",
    }
    assert available_bytes(root=write(tmp_path, files)) == 2000000
