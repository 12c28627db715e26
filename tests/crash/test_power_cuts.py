"""Power cuts: whatever part of the unsynced writes the disk kept, a run ends with the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgezo_runtime.bundle.bundle import Bundle
from tests.c_library import build
from tests.crash.crash_states import Cut, all_cuts, crash_points, resting
from tests.crash.disk_library import SOURCE, Operation, read_log
from tests.crash.short_runs import CONFIGS, STEPS, finish

pytestmark = pytest.mark.usefixtures("unsynced")


def op(kind: str, path: str, other: str = "", offset: int = 0, data: bytes = b"") -> Operation:
    return Operation(kind, path, other, offset, data)


def files(*operations: Operation) -> list[dict[str, bytes]]:
    """All a disk may hold at the end."""
    *_, last = crash_points(operations, samples=0)
    return [state.files for state in last.states.values()]


def test_a_write_without_fsync_may_be_lost_or_torn() -> None:
    found = files(op("create", "a"), op("sync", ""), op("write", "a", data=b"1234"))
    assert found == [{"a": b""}, {"a": b"1234"}, {"a": b"1"}, {"a": b"12"}, {"a": b"123"}]


def test_a_later_write_may_outlive_an_earlier_one() -> None:
    found = files(
        op("create", "a"), op("sync", ""),
        op("write", "a", data=b"1"), op("write", "a", offset=1, data=b"2"),
    )  # fmt: skip
    assert {"a": b"\x002"} in found


def test_an_fsync_of_a_file_does_not_keep_its_name() -> None:
    found = files(op("create", "a"), op("write", "a", data=b"1"), op("sync", "a"))
    assert found == [{}, {"a": b"1"}]
    safe = files(op("create", "a"), op("write", "a", data=b"1"), op("sync", "a"), op("sync", ""))
    assert safe == [{"a": b"1"}]


def test_a_rename_leaves_the_old_file_or_the_new_one() -> None:
    found = files(
        op("create", "a"), op("write", "a", data=b"old"), op("sync", "a"), op("sync", ""),
        op("create", "t"), op("write", "t", data=b"new"), op("sync", "t"), op("rename", "t", "a"),
    )  # fmt: skip
    assert {state["a"] for state in found} == {b"old", b"new"}


def recorded(bundle: Bundle, method: str, folder: Path) -> list[Operation]:
    """What a run does to its folder, `folder`/run: a new one, or one that goes on."""
    library = build(folder, SOURCE)
    (folder / "run").mkdir(exist_ok=True)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    subprocess.run(
        [sys.executable, "-m", "tests.crash.recorded_run", str(bundle.root), method,
         str(folder / "run"), str(folder / "log")],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": path}, check=True,
    )  # fmt: skip
    return read_log(folder / "log")


def try_all(
    bundle: Bundle,
    method: str,
    operations: list[Operation],
    folder: Path,
    expected: object,
    first: int = 0,
) -> list[Cut]:
    """Resume what every cut of a run leaves; returns the cuts."""
    cuts, tried = all_cuts(operations, folder / "certain", first)
    for number, cut in enumerate(cuts):
        (folder / f"cut-{number}").mkdir()
        cut.state.write(folder / f"cut-{number}")
        where = f"cut after {cut.state.point} operations, {cut.state.what}"
        run = folder / f"cut-{number}"
        found = finish(bundle, method, run, cut.safe_steps, cut.safe_examples)
        assert found == expected, where
    print(f"{method}: {tried} schedules of {len(operations)} operations, {len(cuts)} disks")
    return cuts


@pytest.mark.slow
@pytest.mark.parametrize("method", CONFIGS)
def test_no_cut_changes_where_a_run_ends(bundle: Bundle, tmp_path: Path, method: str) -> None:
    operations = recorded(bundle, method, tmp_path)
    assert sum(operation.kind == "write" for operation in operations) > STEPS
    expected = finish(bundle, method, tmp_path / "whole")
    if method == "returning":
        assert b"returns=0" not in expected["watch"]
    cuts = try_all(bundle, method, operations, tmp_path, expected)
    torn = [cut for cut in cuts if cut.safe_steps == STEPS // 2 and "torn" in cut.state.what]
    again = tmp_path / "again"
    torn[0].state.write(again / "run")
    before = resting(torn[0].state.files)
    operations = [*before, *recorded(bundle, method, again)]
    try_all(bundle, method, operations, again, expected, first=len(before))
