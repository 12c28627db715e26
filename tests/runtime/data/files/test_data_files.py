"""Several files of one split: their rows, their numbers, their digest."""

import hashlib
from pathlib import Path

import pytest

from edgezo_runtime.data.files.data_files import DataFiles, file_digest
from edgezo_runtime.errors import DataError, UsageError


def files(folder: Path) -> DataFiles:
    (folder / "a.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    (folder / "b.csv").write_text("n\n3\n4\n")
    return DataFiles.of(folder / "a.jsonl", folder / "b.csv")


def test_rows_follow_each_other(tmp_path: Path) -> None:
    got = list(files(tmp_path).rows())
    assert [row.fields["n"] for row in got] == [1, 2, "3", "4"]
    assert [row.line for row in got] == [1, 2, 3, 4]
    assert got[2].where == f"{tmp_path / 'b.csv'}, line 2"
    assert files(tmp_path).path == Path(f"{tmp_path / 'a.jsonl'} and 1 more")


def test_limit(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text('{"n": 1}\n{"n": 2}\nbroken')
    assert len(list(DataFiles.of(tmp_path / "broken").rows(2))) == 2
    assert [row.fields["n"] for row in files(tmp_path).rows(3)] == [1, 2, "3"]
    with pytest.raises(UsageError, match="1 row or more, not 0"):
        list(files(tmp_path).rows(0))


def test_an_empty_file_among_others(tmp_path: Path) -> None:
    several = files(tmp_path)
    (tmp_path / "b.csv").write_text("n\n")
    with pytest.raises(DataError, match=r"b\.csv: the file is empty"):
        list(several.rows())


def test_digest(tmp_path: Path) -> None:
    """That of one file is its own, so that runs of earlier versions are resumed."""
    several = files(tmp_path)
    one, other = (hashlib.sha256(file.read_bytes()).hexdigest() for file in several.files)
    assert DataFiles.of(several.files[0]).sha256() == one == file_digest(several.files[0])
    assert several.sha256() == hashlib.sha256(f"{one}\n{other}".encode()).hexdigest()
    with pytest.raises(DataError, match="cannot read the file"):
        file_digest(tmp_path / "none.jsonl")
