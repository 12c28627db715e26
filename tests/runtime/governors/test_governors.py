"""Governors on trees of files as Linux has them under /sys and /proc."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.governors import GOVERNORS, Battery, Foreground, Idle, Thermal, make_governors
from edgezo_runtime.governors.sensor import Sensor, SensorError


def write(path: Path, text: object) -> None:
    """A file of the kernel's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def supply(root: Path, name: str, **files: object) -> None:
    """A power supply."""
    for file, text in files.items():
        write(root / "sys/class/power_supply" / name / file, text)


def battery(root: Path, percent: float, status: str = "Discharging", name: str = "BAT0") -> None:
    """A battery of the device."""
    supply(root, name, type="Battery", status=status, capacity=percent)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sensors are read whenever they are asked."""
    monkeypatch.setattr("edgezo_runtime.governors.sensor.EVERY_S", 0)
    monkeypatch.setattr(Sensor.__init__, "__defaults__", (0.0,))


@pytest.mark.usefixtures("always")
def test_a_low_battery_waits_for_the_mains(tmp_path: Path) -> None:
    battery(tmp_path, 31)
    governor = Battery(30, root=tmp_path)
    assert governor() is None
    battery(tmp_path, 30)
    assert governor() == "on battery, 30 % left"
    battery(tmp_path, 5, "Charging")
    assert governor() is None
    battery(tmp_path, 100)
    assert Battery(100, root=tmp_path)() == "on battery, 100 % left"


@pytest.mark.usefixtures("always")
def test_two_batteries_are_one_and_a_mouse_is_none(tmp_path: Path) -> None:
    battery(tmp_path, 10)
    battery(tmp_path, 80, "Not charging", "BAT1")
    supply(tmp_path, "AC", type="Mains", online=0)
    supply(tmp_path, "hid", type="Battery", scope="Device", status="Discharging", capacity=1)
    assert Battery(44, root=tmp_path)() is None
    assert Battery(45, root=tmp_path)() == "on battery, 45 % left"


@pytest.mark.usefixtures("always")
def test_an_empty_bay_is_no_battery_and_a_charge_is_a_share(tmp_path: Path) -> None:
    supply(tmp_path, "BAT0", type="Battery", status="Discharging", charge_now=30, charge_full=120)
    supply(tmp_path, "BAT1", type="Battery", present=0, status="Unknown")
    assert Battery(25, root=tmp_path)() == "on battery, 25 % left"
    assert Battery(24, root=tmp_path)() is None


@pytest.mark.usefixtures("always")
def test_a_desk_on_its_ups_is_on_battery(tmp_path: Path) -> None:
    supply(tmp_path, "ups", type="UPS", scope="System", status="Discharging", capacity=90)
    assert Battery(100, root=tmp_path)() == "on battery, 90 % left"


@pytest.mark.parametrize("text", ["", "N/A", "nan", "inf", "-"])
def test_what_is_no_number_is_no_charge(text: str, tmp_path: Path) -> None:
    battery(tmp_path, 50)
    write(tmp_path / "sys/class/power_supply/BAT0/capacity", text)
    write(tmp_path / "sys/class/thermal/thermal_zone0/temp", text)
    for governor in (Battery(root=tmp_path), Thermal(root=tmp_path)):
        with pytest.raises(UsageError, match=r"cannot be read|no zone"):
            governor.sensor.require()
        assert governor() is None


def test_a_folder_that_is_kept_from_the_app_is_no_sensor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a sandbox: "auto" does without, and a run goes on."""
    battery(tmp_path, 5)

    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    governor = Battery(root=tmp_path)
    with pytest.raises(UsageError, match="Permission denied"):
        governor.sensor.require()
    assert governor() is None


def test_what_is_no_governor_is_refused_when_opened() -> None:
    for wrong in (lambda: None, [3], 3):
        with pytest.raises(UsageError, match="list of names and functions"):
            make_governors(wrong)  # type: ignore[arg-type]


def test_without_a_battery_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    supply(tmp_path, "AC", type="Mains", online=1)
    governor = Battery(100, root=tmp_path)
    governor.sensor.require()
    assert governor() is None


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


def test_the_app_says_when_it_is_in_front() -> None:
    active = False
    governor = Foreground(lambda: active)
    assert governor() is None
    with governor:
        with governor:
            assert governor() == "the app is in the foreground"
        assert governor() is not None
    assert governor() is None
    active = True
    assert governor() is not None


def named(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Have names mean governors of another tree."""
    for name, kind in (("battery", Battery), ("thermal", Thermal), ("idle", Idle)):
        made = lambda *args, kind=kind: kind(*args, root=root)  # noqa: E731
        monkeypatch.setitem(GOVERNORS, name, made)


def test_governors_have_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named(monkeypatch, tmp_path)
    battery(tmp_path, 50)
    write(tmp_path / "sys/class/thermal/thermal_zone0/temp", 20000)
    ours = Foreground()
    (first, second), absent = make_governors("battery:60, thermal:75.5")
    assert isinstance(first, Battery)
    assert (first.min_percent, second.max_c, absent) == (60, 75.5, ())
    assert make_governors(["thermal", ours])[0][1] is ours
    assert make_governors("") == ((), ())
    (found, other), absent = make_governors("auto")
    assert (type(found), type(other)) == (Battery, Thermal)
    assert [text.partition(":")[0] for text in absent] == ["idle"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wind", "expected auto, or one of battery, idle, mains, thermal"),
        ("battery:half", "'half' is not a number"),
        ("mains:3", "'3' is not a number"),
        ("battery:130", "0 to 100"),
        ("thermal:0", "degrees"),
        ("idle:0", "above 0"),
        ("idle", "cannot|pressure"),
    ],
)
def test_what_makes_no_sense_is_refused(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    named(monkeypatch, tmp_path)
    with pytest.raises(UsageError, match=message):
        make_governors(text)


def test_a_sensor_error_is_no_error_of_the_run() -> None:
    def broken() -> float:
        raise SensorError("no such thing")

    assert Sensor(broken).value() is None
