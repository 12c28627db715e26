"""Numbers that the system tells, read now and then."""

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
"""How often a sensor is read, however often it is asked."""

_LOG = logging.getLogger(__name__)


class SensorError(Exception):
    """A sensor cannot be read; the message says which and why."""


class Sensor(Generic[T]):
    """What a governor looks at.

    A sensor that fails during a run is logged once and then taken to say nothing: a device is not
    to stop learning because a file of the kernel's went away.

    Args:
        read: reads it now; raises SensorError.
        every_s: how long a reading is good.
    """

    def __init__(self, read: Callable[[], T], every_s: float = EVERY_S) -> None:
        self._read = read
        self._every_s = every_s
        self._lock = threading.Lock()
        self._at: float | None = None
        self._last: T | None = None
        self._told = False

    def require(self) -> None:
        """Find out whether there is such a sensor.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            self._read()
        except SensorError as error:
            raise UsageError(str(error)) from error

    def value(self) -> T | None:
        """The last reading, made anew if it is old; None where it cannot be read."""
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
    """A short file of the kernel's; None where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """A number in such a file; None where there is none."""
    text = read_text(path)
    try:
        number = math.nan if text is None else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
