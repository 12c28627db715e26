"""States of runs, by receipt and lock."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from edgezo.runs.run_state import run_state
from edgezo_runtime.journal.run_folder import RunFolder


@pytest.mark.parametrize(
    ("receipt", "last", "state"),
    [
        ({"status": "done", "steps": 3}, 3, "done"),
        ({"status": "diverged", "steps": 3}, 0, "diverged"),
        ({"status": "done", "steps": 3}, 4, "unfinished"),
        ({"status": "new", "steps": 3}, 3, "unfinished"),
        ({"status": "done"}, 0, "unfinished"),
        ({}, 0, "unfinished"),
    ],
)
def test_by_receipt(tmp_path: Path, receipt: dict[str, object], last: int, state: str) -> None:
    assert run_state(RunFolder(tmp_path), receipt, last) == state


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    owner = RunFolder(tmp_path)
    owner.acquire()
    reader = RunFolder(tmp_path)
    assert run_state(reader, {"status": "done", "steps": 1}, 1) == "running"
    owner.release()
    assert run_state(reader, {"status": "done", "steps": 1}, 1) == "done"


def test_the_lock_of_a_process_that_is_gone(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=int)
    child.start()
    child.join()
    (tmp_path / "lock").write_text(str(child.pid))
    assert not RunFolder(tmp_path).in_use()


@pytest.mark.parametrize("text", ["", "x", "9" * 30, "-5"])
def test_a_lock_that_names_no_process(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    assert not RunFolder(tmp_path).in_use()
    assert not RunFolder(tmp_path / "none").in_use()
