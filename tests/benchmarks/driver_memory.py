"""What the driver of a GPU says is in use, sampled while something runs."""

from __future__ import annotations

import importlib
import threading
from types import TracebackType
from typing import Any

INTERVAL_S = 0.02


class DriverMemory:
    """Samples the memory in use on the first NVIDIA GPU; other programs on it count as well.

    Attributes:
        peak_bytes: the most so far, over what was in use before; None where NVML is absent.
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self._read = _reader()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> DriverMemory:
        if self._read is not None:
            self.peak_bytes, self._before = 0, self._read()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._read is not None:
            self._thread.join()

    def _sample(self) -> None:
        assert self._read is not None
        while not self._over.wait(INTERVAL_S):
            self.peak_bytes = max(self.peak_bytes or 0, self._read() - self._before)


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
