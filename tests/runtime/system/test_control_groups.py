"""Limits of control groups on trees of files."""

from __future__ import annotations

from pathlib import Path

from edgezo_runtime.system.control_groups import group_rooms, lowest_limit

GROUPS = {
    "proc/self/cgroup": "3:cpu:/x\n2:memory:/a\n0::/b/c\n",
    "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "1000\n",
    "sys/fs/cgroup/b/memory.max": "8000\n",
    "sys/fs/cgroup/b/memory.current": "5000\n",
    "sys/fs/cgroup/b/memory.stat": "anon 4000\ninactive_file 600\nactive_file 300\n",
    "sys/fs/cgroup/b/c/memory.max": "max\n",
    "sys/fs/cgroup/b/c/memory.current": "10\n",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_no_group_has_no_limit(tmp_path: Path) -> None:
    assert lowest_limit(tmp_path) is None
    assert list(group_rooms(tmp_path)) == []


def test_limits_of_both_versions(tmp_path: Path) -> None:
    root = write(tmp_path, GROUPS)
    assert lowest_limit(root) == 8000  # version 1 writes a huge number for none
    assert sorted(group_rooms(root)) == [8000 - 5000 + 900, 9223372036854771712 - 1000]


def test_an_unlimited_version_1_group_has_no_limit(tmp_path: Path) -> None:
    files = {name: text for name, text in GROUPS.items() if "cgroup/b" not in name}
    assert lowest_limit(write(tmp_path, files)) is None
