"""A governor that waits while the device is hot."""

from __future__ import annotations

from pathlib import Path

from edgezo_runtime.errors import UsageError
from edgezo_runtime.governors.sensor import Sensor, SensorError, read_number

HYSTERESIS_C = 5.0
"""Degrees below the limit at which steps resume, so that they do not start and stop in turn."""

_LEAST_C, _MOST_C = -50.0, 200.0
"""Range of temperatures; zones that are switched off report values outside of it."""


class Thermal:
    """Makes steps wait from a temperature of the hottest zone on, until it is 5 degrees lower.

    Args:
        max_c: degrees Celsius.
        root: folder that holds /sys; tests have their own.
    Raises:
        UsageError: `max_c` is out of range.
    """

    def __init__(self, max_c: float = 80.0, *, root: Path = Path("/")) -> None:
        if not 0 < max_c <= _MOST_C:
            raise UsageError(f"thermal {max_c:g}: must be degrees Celsius, such as 80")
        self.max_c = max_c
        self._folder = root / "sys/class/thermal"
        self._hot = False
        self.sensor = Sensor(self._read)

    def __call__(self) -> str | None:
        """Return the reason to wait, or None."""
        hottest = self.sensor.value()
        if hottest is None:
            return None
        self._hot = hottest >= self.max_c - (HYSTERESIS_C if self._hot else 0)
        return f"the device is at {hottest:.0f} C" if self._hot else None

    def _read(self) -> float:
        """Temperature of the hottest zone, in degrees Celsius.

        Raises:
            SensorError: no zone has a temperature.
        """
        zones = sorted(self._folder.glob("thermal_zone*/temp"))
        found = [value / 1000 for path in zones if (value := read_number(path)) is not None]
        found = [value for value in found if _LEAST_C < value < _MOST_C]
        if not found:
            raise SensorError(f"thermal: no zone in {self._folder} has a temperature")
        return max(found)
