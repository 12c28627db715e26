"""Removed runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgezo.runs.removal import remove_run, run_files_of
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.run_folder import RunFolder
from tests.edgezo.written_runs import written_run


def test_a_run_and_its_folder_go(tmp_path: Path) -> None:
    run = written_run(tmp_path / "run")
    for name in ("adapter.safetensors", "lock", "prefix.cache", "journal.bin"):
        (run / name).touch()
    assert run_files_of(RunFolder(run))[-1].name == "journal.bin"
    assert remove_run(run) == []
    assert not run.exists()


def test_other_files_stay(tmp_path: Path) -> None:
    run = written_run(tmp_path / "run")
    (run / "notes.txt").write_text("mine")
    assert remove_run(run) == [run / "notes.txt"]
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
    with pytest.raises(RunFileError, match="nothing was removed"):
        remove_run(run)


def test_a_link_goes_and_not_what_it_leads_to(tmp_path: Path) -> None:
    run = written_run(tmp_path / "run")
    (tmp_path / "precious").write_text("kept")
    (run / "adapter.safetensors").symlink_to(tmp_path / "precious")
    remove_run(run)
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_run_that_goes_on_stays(tmp_path: Path) -> None:
    run = written_run(tmp_path / "run")
    owner = RunFolder(run)
    owner.acquire()
    with pytest.raises(UsageError, match="stop it first"):
        remove_run(run)
    assert (run / "receipt.json").exists()
    owner.release()
