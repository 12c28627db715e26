"""Governors by name, as an app or the command line asks for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgezo_runtime import governors
from edgezo_runtime.errors import UsageError
from edgezo_runtime.governors import GOVERNORS, make_governors
from edgezo_runtime.governors.battery import Battery
from edgezo_runtime.governors.foreground import Foreground
from edgezo_runtime.governors.idle import Idle
from edgezo_runtime.governors.thermal import Thermal
from tests.runtime.governors.kernel_trees import battery, write


def test_the_package_exports_its_governors() -> None:
    names = ["AUTO", "GOVERNORS", "Battery", "Foreground", "Governor", "Idle", "Thermal"]
    assert governors.__all__ == [*names, "make_governors"]
    found = (governors.Battery, governors.Foreground, governors.Idle, governors.Thermal)
    assert found == (Battery, Foreground, Idle, Thermal)


def test_what_is_no_governor_is_refused_when_opened() -> None:
    for wrong in (lambda: None, [3], 3):
        with pytest.raises(UsageError, match="list of names and functions"):
            make_governors(wrong)  # type: ignore[arg-type]


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
        ("wind", "expected auto, or names among battery, idle, mains, thermal"),
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
