"""The thermal governor on trees of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.governors.thermal import Thermal
from tests.runtime.governors.kernel_trees import write


@pytest.mark.usefixtures("always")
def test_heat_goes_on_five_degrees_below(tmp_path: Path) -> None:
    zones = tmp_path / "sys/class/thermal"
    governor = Thermal(70, root=tmp_path)
    found = []
    for hottest in (69.9, 70.0, 66.0, 65.0, 64.9, 69.9):
        write(zones / "thermal_zone0/temp", 20000)
        write(zones / "thermal_zone1/temp", int(hottest * 1000))
        write(zones / "thermal_zone2/temp", -274000)
        found.append(governor() is not None)
    assert found == [False, True, True, True, False, False]
    write(zones / "thermal_zone1/temp", 71400)
    assert governor() == "the device is at 71 C"


@pytest.mark.parametrize("limit", [0, -5.0, 201, float("nan")])
def test_a_limit_that_is_no_temperature(limit: float) -> None:
    with pytest.raises(UsageError, match="degrees Celsius"):
        Thermal(limit)
