"""Wait while the device is hot."""

from __future__ import annotations

from pathlib import Path

from edgezo_runtime.errors import UsageError
from edgezo_runtime.governors.sensor import Sensor, SensorError, read_number

HYSTERESIS_C = 5.0
"""So much cooler the device must be before steps go on: else they would come and go."""

_LEAST_C, _MOST_C = -50.0, 200.0
"""What is beyond is no temperature: zones that are switched off say such things."""


class Thermal:
    """Steps wait from a temperature of the hottest zone on, until it is 5 degrees below.

    Args:
        max_c: degrees Celsius.
        root: where /sys hangs; tests give their own.
    Raises:
        UsageError: `max_c` is no temperature of a device.
    """

    def __init__(self, max_c: float = 80.0, *, root: Path = Path("/")) -> None:
        if not 0 < max_c <= _MOST_C:
            raise UsageError(f"thermal {max_c:g}: must be degrees Celsius, such as 80")
        self.max_c = max_c
        self._folder = root / "sys/class/thermal"
        self._hot = False
        self.sensor = Sensor(self._read)

    def __call__(self) -> str | None:
        """Why to wait; None to go on."""
        hottest = self.sensor.value()
        if hottest is None:
            return None
        self._hot = hottest >= self.max_c - (HYSTERESIS_C if self._hot else 0)
        return f"the device is at {hottest:.0f} C" if self._hot else None

    def _read(self) -> float:
        """Temperature of the hottest zone, degrees Celsius.

        Raises:
            SensorError: no zone says one.
        """
        zones = sorted(self._folder.glob("thermal_zone*/temp"))
        found = [value / 1000 for path in zones if (value := read_number(path)) is not None]
        found = [value for value in found if _LEAST_C < value < _MOST_C]
        if not found:
            raise SensorError(f"thermal: no zone in {self._folder} says a temperature")
        return max(found)
