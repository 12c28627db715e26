"""The files of a task: a file, or a folder of splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgezo.cli.files.task_data import PACKAGED, find_task, keep_splits
from edgezo_runtime.errors import DataError

ROW = '{"text": "a"}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.jsonl").write_text(ROW)
    return tmp_path


def names(folder: Path, valid: str | None = None, test: str | None = None) -> list[str]:
    """Split and file of everything that is found."""
    given = [() if name is None else (name,) for name in (valid, test)]
    found = find_task([str(folder)], *given).files()
    return [f"{split} {' '.join(file.name for file in part.files)}" for split, part in found]


def test_a_folder_has_three_splits(folder: Path) -> None:
    """The test rows of a folder were not evaluated, though they belong to the data."""
    assert names(folder) == ["train train.jsonl", "valid dev.jsonl", "test test.jsonl"]
    assert names(folder, "none") == ["train train.jsonl", "test test.jsonl"]
    assert names(folder, test="none") == ["train train.jsonl", "valid dev.jsonl"]
    assert names(folder, "none", "none") == ["train train.jsonl"]
    assert names(folder / "train.jsonl") == ["train train.jsonl"]
    other = str(folder / "test.jsonl")
    assert names(folder / "train.jsonl", other) == ["train train.jsonl", "valid test.jsonl"]
    assert names(folder / "train.jsonl", str(folder), str(folder)) == names(folder)


def test_two_files_for_validation_are_refused_unless_one_is_named(folder: Path) -> None:
    """Naming one did not help."""
    (folder / "val.jsonl").write_text(ROW)
    with pytest.raises(
        DataError, match=r"val\.jsonl and dev\.jsonl could .*: --valid FILE, or --valid"
    ):
        names(folder)
    assert names(folder, str(folder / "val.jsonl"))[1] == "valid val.jsonl"
    assert names(folder, "none") == ["train train.jsonl", "test test.jsonl"]


def test_a_file_that_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        names(folder, test="other.jsonl")
    assert len(list(find_task([PACKAGED]).files())) == 3
    assert len(list(find_task([PACKAGED], test=["none"]).files())) == 2


@pytest.mark.parametrize(
    ("saved", "test"),
    [
        ({"data": ("rows",), "test": ()}, ("none",)),
        ({"data": ("rows",)}, ("none",)),
        ({"data": ("rows",), "test": ("t.jsonl",)}, ("t.jsonl",)),
        ({"data": ("rows",), "test": ("none",)}, ("none",)),
        ({"data": (PACKAGED,), "test": ()}, ()),
        ({}, None),
    ],
    ids=str,
)
def test_a_run_keeps_its_splits(
    saved: dict[str, tuple[str, ...]], test: tuple[str, ...] | None
) -> None:
    assert keep_splits(saved).get("test") == test
