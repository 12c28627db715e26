"""The battery governor on trees of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.governors.battery import Battery
from tests.runtime.governors.kernel_trees import battery, supply


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


def test_without_a_battery_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    supply(tmp_path, "AC", type="Mains", online=1)
    governor = Battery(100, root=tmp_path)
    governor.sensor.require()
    assert governor() is None
