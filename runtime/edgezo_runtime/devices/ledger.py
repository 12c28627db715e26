"""The bytes that a process holds on a device, counted here: some providers have no memory limit."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from edgezo_runtime.devices.faults import ShortOfDeviceError
from edgezo_runtime.system.sizes import format_size

WEIGHTS = "weights"
"""What weights are called in a ledger."""


class Ledger:
    """Counts what lies on a device.

    Attributes:
        limit_bytes: what may lie there; None for no limit.
        held_bytes: what lies there now: weights, states and results. What the provider takes for
            itself while a graph runs is not in it.
        peak_bytes: the most that has.
        make_room: drops weights that nobody uses yet; None where there are none.
        passes: names what runs now.
        passes_peaks: the most that has besides weights, by what ran.
        sent_bytes: what was copied to the device so far.
        fetched_bytes: what was copied back.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a value may be collected where one is being counted
        self.limit_bytes: int | None = None
        self.held_bytes = 0
        self.peak_bytes = 0
        self.make_room: Callable[[], None] | None = None
        self.passes = ""
        self.passes_peaks: dict[str, int] = {}
        self._weights_bytes = 0
        self.sent_bytes = self.fetched_bytes = 0

    def take(self, size_bytes: int, what: str) -> None:
        """Count bytes before they are allocated; weights that came ahead make room for others.

        Args:
            size_bytes: how many.
            what: names them, for the message; `WEIGHTS` for weights.
        Raises:
            ShortOfDeviceError: they do not fit in the limit.
        """
        try:
            self._take(size_bytes, what)
        except ShortOfDeviceError:
            if what == WEIGHTS or self.make_room is None:
                raise
            self.make_room()  # without the lock, which what comes ahead may wait for
            self._take(size_bytes, what)

    def _take(self, size_bytes: int, what: str) -> None:
        with self._lock:
            above = self.held_bytes + size_bytes
            if self.limit_bytes is not None and above > self.limit_bytes:
                raise ShortOfDeviceError(
                    f"{what} would take the device to {format_size(above)} of "
                    f"{format_size(self.limit_bytes)}"
                )
            self.held_bytes = above
            self._weights_bytes += size_bytes if what == WEIGHTS else 0
            self.peak_bytes = max(self.peak_bytes, above)
            self._note_passes()

    @property
    def passes_peak_bytes(self) -> int:
        """The most that has lain there besides weights."""
        return max(self.passes_peaks.values(), default=0)

    def _note_passes(self) -> None:
        held = self.held_bytes - self._weights_bytes
        self.passes_peaks[self.passes] = max(self.passes_peaks.get(self.passes, 0), held)

    def give(self, size_bytes: int, what: str) -> None:
        """Count bytes that were released."""
        with self._lock:
            self.held_bytes -= size_bytes
            self._weights_bytes -= size_bytes if what == WEIGHTS else 0

    def follow(self, value: Any, size_bytes: int, what: str) -> None:
        """Have bytes that are counted released when a value is collected."""
        weakref.finalize(value, self.give, size_bytes, what).atexit = False

    def restart(self, limit_bytes: int | None) -> None:
        """Count peaks and copies anew, as where a run begins.

        Args:
            limit_bytes: what may lie on the device from now on; None for no limit.
        """
        with self._lock:
            self.limit_bytes = limit_bytes
            self.peak_bytes = self.held_bytes
            self.passes_peaks.clear()
            self._note_passes()
            self.sent_bytes = self.fetched_bytes = 0

    def sent(self, size_bytes: int) -> None:
        """Count bytes that were copied to the device."""
        with self._lock:
            self.sent_bytes += size_bytes

    def fetched(self, size_bytes: int) -> None:
        """Count bytes that were copied back."""
        with self._lock:
            self.fetched_bytes += size_bytes
