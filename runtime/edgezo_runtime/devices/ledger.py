"""The bytes that a process holds on a device, counted here: some providers have no memory limit."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from edgezo_runtime.devices.faults import ShortOfDeviceError
from edgezo_runtime.system.sizes import format_size


class Ledger:
    """Counts what lies on a device.

    Attributes:
        limit_bytes: what may lie there; None for no limit.
        held_bytes: what lies there now: weights, states and results.
        peak_bytes: the most that has, with what sessions took for themselves while they ran.
        crossed_bytes: what has been copied to the device and back so far.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a value may be collected where one is being counted
        self.limit_bytes: int | None = None
        self.held_bytes = 0
        self.peak_bytes = 0
        self.crossed_bytes = 0

    def take(self, size_bytes: int, what: str, work_bytes: int = 0) -> None:
        """Count bytes before they are allocated.

        Args:
            size_bytes: bytes that stay.
            what: names them, for the message.
            work_bytes: bytes that are needed beside them for a moment.
        Raises:
            ShortOfDeviceError: they do not fit in the limit.
        """
        with self._lock:
            above = self.held_bytes + size_bytes + work_bytes
            if self.limit_bytes is not None and above > self.limit_bytes:
                raise ShortOfDeviceError(
                    f"{what} would take the device to {format_size(above)} of "
                    f"{format_size(self.limit_bytes)}"
                )
            self.held_bytes += size_bytes
            self.peak_bytes = max(self.peak_bytes, above)

    def give(self, size_bytes: int) -> None:
        """Count bytes that were released."""
        with self._lock:
            self.held_bytes -= size_bytes

    def follow(self, value: Any, size_bytes: int) -> None:
        """Have bytes that are counted released when a value is collected."""
        weakref.finalize(value, self.give, size_bytes).atexit = False

    def cross(self, size_bytes: int) -> None:
        """Count bytes that are copied between the host and the device."""
        with self._lock:
            self.crossed_bytes += size_bytes
