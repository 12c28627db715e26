"""Wait while other processes need the processor."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from edgezo_runtime.errors import UsageError
from edgezo_runtime.governors.sensor import Sensor, SensorError, read_text

_SOME = re.compile(r"^some .*\bavg10=([0-9.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Busyness:
    """The load of the processor.

    Attributes:
        pressure: share of the last ten seconds in which a task waited for a core, percent
            (pressure stall information).
        load: tasks per core that ran or waited to run, mean over the last minute.
    """

    pressure: float
    load: float


class Idle:
    """Steps wait while tasks wait for a core, until the machine has cores to spare.

    While the run steps, other tasks that wait show as pressure. While it waits, they do not. So it
    resumes when the load of the other tasks leaves half of the cores free.

    Args:
        max_percent: steps wait above this pressure, 0 to 100.
        root: folder that holds /proc; only tests change it.
        cores: number of cores; None asks the system.
    Raises:
        UsageError: `max_percent` is out of range.

    References:
        https://docs.kernel.org/accounting/psi.html
    """

    def __init__(
        self, max_percent: float = 20.0, *, root: Path = Path("/"), cores: int | None = None
    ) -> None:
        if not 0 < max_percent <= 100:
            raise UsageError(f"idle {max_percent:g}: must be a percentage, above 0 to 100")
        self.max_percent = max_percent
        self._proc = root / "proc"
        self._cores = cores or os.cpu_count() or 1
        self._busy = False
        self.sensor = Sensor(self._read)

    def __call__(self) -> str | None:
        """Return the reason to wait, or None."""
        found = self.sensor.value()
        if found is None:
            return None
        limit = self.max_percent / 2 if self._busy else self.max_percent
        self._busy = found.pressure > limit or (self._busy and found.load > 0.5)
        if not self._busy:
            return None
        return f"others need the processor (pressure {found.pressure:.0f} %, load {found.load:.1f})"

    def _read(self) -> Busyness:
        """Read pressure and load.

        Raises:
            SensorError: the kernel does not report them.
        """
        path = self._proc / "pressure/cpu"
        match = _SOME.search(read_text(path) or "")
        load = (read_text(self._proc / "loadavg") or "").partition(" ")[0]
        try:
            if match is None:
                raise ValueError("no 'some' line")
            return Busyness(float(match[1]), float(load) / self._cores)
        except ValueError as error:
            raise SensorError(f"idle: {path} and {path.parents[1] / 'loadavg'}: {error}") from error
