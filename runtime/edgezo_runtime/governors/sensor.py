"""Readings of the system, which are cached for a second."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from edgezo_runtime.errors import UsageError

T = TypeVar("T")

EVERY_S = 1.0
"""Seconds for which a reading is used again."""

_LOG = logging.getLogger(__name__)


class SensorError(Exception):
    """A sensor cannot be read; the message names it and the reason."""


class Sensor(Generic[T]):
    """A reading that a governor depends on.

    A sensor that fails during a run is logged once and ignored from then on: a run should not stop
    because a file of the kernel is gone.

    Args:
        read: returns the reading, or raises SensorError.
        every_s: seconds for which a reading is used again.
    """

    def __init__(self, read: Callable[[], T], every_s: float = EVERY_S) -> None:
        self._read = read
        self._every_s = every_s
        self._lock = threading.Lock()
        self._at: float | None = None
        self._last: T | None = None
        self._told = False

    def require(self) -> None:
        """Check that the sensor can be read.

        Raises:
            UsageError: it cannot.
        """
        try:
            self._read()
        except SensorError as error:
            raise UsageError(str(error)) from error

    def value(self) -> T | None:
        """The reading, renewed if it is too old; None where the sensor cannot be read."""
        with self._lock:
            now = time.monotonic()
            if self._at is None or now - self._at >= self._every_s:
                self._at, self._last = now, self._reading()
            return self._last

    def _reading(self) -> T | None:
        try:
            return self._read()
        except SensorError as error:
            if not self._told:
                self._told = True
                _LOG.warning("%s; it is ignored from now on", error)
            return None


def read_text(path: Path) -> str | None:
    """The text of a short file of the kernel; None where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """The number in a file of the kernel; None where there is none."""
    text = read_text(path)
    try:
        number = math.nan if text is None else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
