"""A governor that waits while the battery is low."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgezo_runtime.errors import UsageError
from edgezo_runtime.governors.sensor import Sensor, SensorError, read_number, read_text


@dataclass(frozen=True, slots=True)
class Charge:
    """State of all batteries of the device.

    Attributes:
        discharging: does one of them power the device?
        percent: mean of their charges.
    """

    discharging: bool
    percent: float


class Battery:
    """Makes steps wait while the device runs on battery with at most a given charge.

    A device without a battery never waits. Batteries of peripherals do not count.

    Args:
        min_percent: charge, 0 to 100; 100 waits for the mains.
        root: folder that holds /sys; tests have their own.
    Raises:
        UsageError: `min_percent` is out of range.
    """

    def __init__(self, min_percent: float = 30.0, *, root: Path = Path("/")) -> None:
        if not 0 <= min_percent <= 100:
            raise UsageError(f"battery {min_percent:g}: must be a percentage, 0 to 100")
        self.min_percent = min_percent
        self._folder = root / "sys/class/power_supply"
        self.sensor = Sensor(self._read)

    def __call__(self) -> str | None:
        """Return the reason to wait, or None."""
        charge = self.sensor.value()
        if charge is None or not charge.discharging or charge.percent > self.min_percent:
            return None
        return f"on battery, {charge.percent:.0f} % left"

    def _read(self) -> Charge:
        """Read all batteries.

        Raises:
            SensorError: the kernel has no power supplies, or no charge of a battery.
        """
        if not self._folder.is_dir():
            raise SensorError(f"battery: this system has no {self._folder}")
        try:
            supplies = sorted(self._folder.iterdir())
        except OSError as error:  # as for sandboxed apps
            raise SensorError(f"battery: {self._folder}: {error.strerror}") from error
        charges: list[float] = []
        discharging = False
        for supply in supplies:
            if not _feeds_the_device(supply):
                continue
            charges.append(_percent(supply))
            discharging |= read_text(supply / "status") == "Discharging"
        return Charge(discharging, sum(charges) / len(charges) if charges else 100.0)


def _feeds_the_device(supply: Path) -> bool:
    """Is it a battery that is present and powers the device, not a peripheral?"""
    if read_text(supply / "type") not in ("Battery", "UPS"):
        return False
    return read_text(supply / "scope") != "Device" and read_text(supply / "present") != "0"


def _percent(supply: Path) -> float:
    """Charge of a battery in percent, from energy or charge where it has no percentage.

    Raises:
        SensorError: the kernel has none of them.
    """
    percent = read_number(supply / "capacity")
    if percent is not None:
        return percent
    for kind in ("energy", "charge"):
        now, full = read_number(supply / f"{kind}_now"), read_number(supply / f"{kind}_full")
        if now is not None and full is not None and full > 0:
            return 100 * now / full
    raise SensorError(f"battery: {supply / 'capacity'} cannot be read")
