"""The idle governor on trees of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.governors.idle import Idle
from tests.runtime.governors.kernel_trees import write


@pytest.mark.usefixtures("always")
def test_a_busy_machine_is_left_alone_until_cores_are_free(tmp_path: Path) -> None:
    governor = Idle(20, root=tmp_path, cores=4)

    def at(pressure: float, load: float) -> bool:
        some = f"some avg10={pressure} avg60=0.00 avg300=0.00 total=1"
        write(tmp_path / "proc/pressure/cpu", f"{some}\nfull avg10=99.00 avg60=0 avg300=0 total=0")
        write(tmp_path / "proc/loadavg", f"{load} 0.1 0.1 1/200 999")
        return governor() is not None

    assert not at(20.0, 4.0)  # the load is our own
    assert at(20.1, 4.0)
    assert at(0.0, 2.1)  # the others need more than half of the cores still
    assert at(10.1, 0.0)
    assert not at(9.0, 2.0)
    assert not at(15.0, 4.0)


def test_a_kernel_without_pressure_has_no_sensor(tmp_path: Path) -> None:
    write(tmp_path / "proc/loadavg", "0.5 0.1 0.1 1/200 999")
    write(tmp_path / "proc/pressure/cpu", "full avg10=99.00 avg60=0 avg300=0 total=0")
    governor = Idle(root=tmp_path)
    with pytest.raises(UsageError, match="no 'some' line"):
        governor.sensor.require()
    assert governor() is None
