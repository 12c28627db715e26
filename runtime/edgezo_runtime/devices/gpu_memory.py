"""How much memory a GPU has, from what its driver tells."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from edgezo_runtime.system.memory import is_unified, total_bytes

NVIDIA, AMD = 0x10DE, 0x1002
"""Makers, as PCI numbers them."""

_AMDGPU = "class/drm/card*/device/mem_info_vram_total"


def gpu_total_bytes(vendor: int, sysfs: Path = Path("/sys")) -> int | None:
    """Bytes of the first GPU of a maker; None if nothing tells.

    A board with unified memory has that of the machine.

    Args:
        vendor: the maker.
        sysfs: where Linux describes devices.
    """
    if is_unified():
        return total_bytes()
    if vendor == NVIDIA:
        return _nvml_bytes()
    for file in sorted(sysfs.glob(_AMDGPU)) if vendor == AMD else ():
        try:
            return int(file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
    return None


def _nvml_bytes() -> int | None:
    """What NVIDIA's library tells, if nvidia-ml-py is installed."""
    try:
        pynvml: Any = importlib.import_module("pynvml")  # it has no types
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).total)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
