"""Trees of files as Linux has them under /sys and /proc."""

from __future__ import annotations

from pathlib import Path


def write(path: Path, text: object) -> None:
    """A file of the kernel's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def supply(root: Path, name: str, **files: object) -> None:
    """A power supply."""
    for file, text in files.items():
        write(root / "sys/class/power_supply" / name / file, text)


def battery(root: Path, percent: float, status: str = "Discharging", name: str = "BAT0") -> None:
    """A battery of the device."""
    supply(root, name, type="Battery", status=status, capacity=percent)
