"""What the driver of a GPU says is in use, sampled while something runs."""

from __future__ import annotations

import importlib
from typing import Any

from edgezo_runtime.budget.ledger import PeakSampler

INTERVAL_S = 0.02
"""Between two samples: asking the driver takes time of the GPU's host."""


class DriverMemory(PeakSampler):
    """Samples the memory in use on the first NVIDIA GPU; other programs on it count as well."""

    def __init__(self) -> None:
        read = _reader()
        super().__init__(read or (lambda: 0), INTERVAL_S)
        self._before = None if read is None else read()

    @property
    def peak_bytes(self) -> int | None:
        """The most so far, over what was in use before; None where NVML is absent."""
        return None if self._before is None else self.peak - self._before


def _reader() -> Any:
    """A function that returns the bytes in use; None without NVML or a GPU that it knows."""
    try:
        pynvml: Any = importlib.import_module("pynvml")  # it has no types
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return None
    return lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
