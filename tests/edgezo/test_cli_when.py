"""`edgezo tune --when`: steps wait for the device, and the run ends the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgezo.cli.tune import session as tune_session
from edgezo_runtime.governors import GOVERNORS, Battery, Thermal
from tests.edgezo.conftest import Invoke, Tiny


def battery(root: Path, status: str) -> None:
    """A battery of 12 percent."""
    folder = root / "sys/class/power_supply/BAT0"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("type", "Battery"), ("capacity", "12"), ("status", status)):
        (folder / name).write_text(f"{text}\n")


def arguments(tiny: Tiny, *more: str) -> tuple[str, ...]:
    return (
        "tune", str(tiny.int8), "--data", str(tiny.data), "--budget", "8GB", "--steps", "4",
        "--max-time", "0", "--lr", "0.01", "--eps", "0.01", "--first-order", "0", "--json", *more,
    )  # fmt: skip


@pytest.fixture
def sensors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the governors look."""
    for name, kind in (("battery", Battery), ("thermal", Thermal)):
        made = lambda *args, kind=kind: kind(*args, root=tmp_path)  # noqa: E731
        monkeypatch.setitem(GOVERNORS, name, made)
    return tmp_path


@pytest.mark.slow
def test_a_run_waits_for_the_battery_and_ends_the_same(
    invoke: Invoke, tiny: Tiny, sensors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = json.loads(invoke(*arguments(tiny, "-o", "alone")).stdout)
    battery(sensors, "Discharging")
    told = tune_session.note

    def charge(text: str) -> None:
        told(text)
        battery(sensors, "Charging")

    monkeypatch.setattr(tune_session, "note", charge)
    waited = invoke(*arguments(tiny, "-o", "waited", "--when", "battery:40"))
    assert "waiting after 0 steps: on battery, 12 % left" in waited.stderr
    assert "resuming" in waited.stderr
    result = json.loads(waited.stdout)
    assert result["adapter_sha256"] == alone["adapter_sha256"]


def test_a_sensor_that_is_not_there_is_refused_by_name_and_told_by_auto(
    invoke: Invoke, tiny: Tiny, sensors: Path
) -> None:
    battery(sensors, "Charging")
    refused = invoke(*arguments(tiny, "--when", "battery,thermal"), code=2)
    assert "thermal: no zone in" in refused.stderr
    done = invoke(*arguments(tiny, "-o", "run", "--when", "auto", "--dry-run"))
    warnings = json.loads(done.stdout)["warnings"]
    assert any("thermal" in text and "not used" in text for text in warnings)
    assert "expected auto" in invoke(*arguments(tiny, "--when", "wind"), code=2).stderr
