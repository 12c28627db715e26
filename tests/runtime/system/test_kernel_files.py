"""Short text files of the kernel."""

from __future__ import annotations

from pathlib import Path

from edgezo_runtime.system.kernel_files import kib_line, read_kernel_text


def test_text_and_its_absence(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"Board\xff\0")
    assert str(read_kernel_text(tmp_path / "model")).startswith("Board")
    assert read_kernel_text(tmp_path / "absent") is None
    assert read_kernel_text(tmp_path) is None


def test_lines_in_kib(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t   30 kB\nVmRSS:\t   20 kB\n")
    assert kib_line(tmp_path / "status", "VmRSS:") == 20 * 1024
    assert kib_line(tmp_path / "status", "VmSwap:") is None
    assert kib_line(tmp_path / "absent", "VmRSS:") is None
