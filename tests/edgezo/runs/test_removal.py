"""Removed runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgezo.runs.removal import check_removable, remove_run, run_files_of
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


def test_a_link_to_a_run_is_refused(tmp_path: Path) -> None:
    run = written_run(tmp_path / "run")
    link = tmp_path / "link"
    link.symlink_to(run)
    with pytest.raises(UsageError, match=f"a link to {run}"):
        remove_run(link)
    assert (run / "receipt.json").exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "receipt.json"])
@pytest.mark.parametrize("settings", [None, "{", '{"created_by": "other 1"}'])
def test_files_of_another_program_stay(tmp_path: Path, name: str, settings: str | None) -> None:
    (tmp_path / name).write_text("{}")
    if settings is not None:
        (tmp_path / "config.json").write_text(settings)
    with pytest.raises(RunFileError, match="another program's"):
        remove_run(tmp_path)
    assert (tmp_path / name).read_text() == "{}"


def test_a_damaged_run_can_be_removed(tmp_path: Path) -> None:
    run = written_run(tmp_path / "run")
    for name in ("rows.json", "receipt.json", "config.json"):
        (run / name).write_text("{")
    (run / "journal.bin").write_bytes(b"damaged")
    check_removable(run)
    assert remove_run(run) == []
