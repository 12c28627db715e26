"""Folders for other tools: whole or not at all, and nothing else is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgezo_runtime.adapters.output_folder import FolderKind, new_folder
from edgezo_runtime.errors import RunFileError, UsageError

KIND = FolderKind("config.json", frozenset({"more.bin"}), frozenset({".txt"}))


def write(folder: Path, text: str = "new", *, force: bool = False) -> None:
    with new_folder(folder, force, KIND) as made:
        (made / "config.json").write_text(text)


def test_what_is_replaced_is_of_the_kind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "old")
    (out / "more.bin").touch()
    (out / "a.txt").touch()
    with pytest.raises(UsageError, match="exists"):
        write(out)
    write(out, force=True)
    assert [file.name for file in out.iterdir()] == ["config.json"]
    assert (out / "config.json").read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["journal.bin", "sub/a.txt"])
def test_other_files_are_not_removed(tmp_path: Path, name: str) -> None:
    """A run has a config.json as well, and so may the parent folder of a model."""
    write(tmp_path / "out", "old")
    other = tmp_path / "out" / name
    other.parent.mkdir(exist_ok=True)
    other.touch()
    with pytest.raises(UsageError, match=f"has '{Path(name).parts[0]}', which this format has not"):
        write(tmp_path / "out", force=True)
    assert other.exists()


def test_a_link_leads_to_the_folder_that_is_meant(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("real")
    write(link)
    write(link, "again", force=True)
    assert link.is_symlink()
    assert (tmp_path / "real" / "config.json").read_text() == "again"


def test_the_folder_of_the_process_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    for place in (".", "..", "../out"):
        with pytest.raises(UsageError, match="this process works in it"):
            write(Path(place), force=True)


def test_what_was_there_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails: the new folder is not there, and the old one is."""
    out = tmp_path / "out"
    write(out, "old")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == out and not self.name.endswith(".old"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(RunFileError, match="cannot be written: Input/output error"):
        write(out, force=True)
    assert (out / "config.json").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
