"""Sensors: read now and then, and ignored when they go away."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.governors.battery import Battery
from edgezo_runtime.governors.idle import Idle
from edgezo_runtime.governors.sensor import Sensor, SensorError, read_number, read_text
from edgezo_runtime.governors.thermal import Thermal
from tests.runtime.governors.kernel_trees import battery, write


@pytest.mark.parametrize("text", ["", "N/A", "nan", "inf", "-"])
def test_what_is_no_number_is_no_charge(text: str, tmp_path: Path) -> None:
    battery(tmp_path, 50)
    write(tmp_path / "sys/class/power_supply/BAT0/capacity", text)
    write(tmp_path / "sys/class/thermal/thermal_zone0/temp", text)
    for governor in (Battery(root=tmp_path), Thermal(root=tmp_path)):
        with pytest.raises(UsageError, match=r"cannot be read|no zone"):
            governor.sensor.require()
        assert governor() is None


def test_a_sensor_is_read_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.5, 0.99, 1.0, 1.5, 2.5])
    monkeypatch.setattr("edgezo_runtime.governors.sensor.time.monotonic", lambda: next(clock))
    readings = iter(range(10))
    sensor = Sensor(lambda: next(readings))
    assert [sensor.value() for _ in range(6)] == [0, 0, 0, 1, 1, 2]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("kind", [Battery, Thermal, Idle])
def test_a_sensor_that_goes_away_is_told_once(
    kind: type[Battery | Thermal | Idle], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    governor = kind(root=tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [governor(), governor(), governor()] == [None] * 3
    assert len(caplog.records) == 1
    assert "ignored from now on" in caplog.text
    with pytest.raises(UsageError, match=kind.__name__.lower()):
        governor.sensor.require()


def test_a_sensor_error_is_no_error_of_the_run() -> None:
    def broken() -> float:
        raise SensorError("no such thing")

    assert Sensor(broken).value() is None


def test_files_of_the_kernel(tmp_path: Path) -> None:
    write(tmp_path / "a", " 12.5 ")
    write(tmp_path / "b", "N/A")
    assert (read_text(tmp_path / "a"), read_number(tmp_path / "a")) == ("12.5", 12.5)
    assert (read_text(tmp_path / "b"), read_number(tmp_path / "b")) == ("N/A", None)
    assert (read_text(tmp_path / "c"), read_number(tmp_path / "c")) == (None, None)
