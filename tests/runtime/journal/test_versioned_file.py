"""Files with a version: what is written comes back, and what is wrong is said."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgezo_runtime.errors import RunFileError
from edgezo_runtime.journal.versioned_file import read_versioned, write_versioned


@dataclass(frozen=True)
class Kept:
    """What a file holds."""

    names: tuple[str, ...]
    version: int = 3


def read(path: Path) -> Kept | None:
    return read_versioned(path, Kept, 3, what="a test's", remedy="remove it")


@pytest.mark.parametrize(("indent", "lines"), [(None, 1), (1, 7)])
def test_what_is_written_comes_back(tmp_path: Path, indent: int | None, lines: int) -> None:
    assert read(tmp_path / "kept") is None
    write_versioned(tmp_path / "kept", Kept(("a", "ü")), indent)
    assert read(tmp_path / "kept") == Kept(("a", "ü"))
    text = (tmp_path / "kept").read_text()
    assert json.loads(text) == {"names": ["a", "ü"], "version": 3}
    assert text.count("\n") == lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"names": [], "version": 4}', "has version 4, this edgezo reads 3; .* or remove it"),
        (b'{"names": []}', "has version None"),
        (b'{"names": 1, "version": 3}', "not a test's: .*names.*; remove it"),
        (b'{"names": [], "version": 3, "more": 1}', "not a test's: .*more"),
        (b"\xff", "not a test's"),
        (b"[]", "not a test's"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "kept").write_bytes(content)
    with pytest.raises(RunFileError, match=message):
        read(tmp_path / "kept")


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(RunFileError, match="cannot be read"):
        read(tmp_path / "kept")
    with pytest.raises(RunFileError, match="cannot be written"):
        write_versioned(tmp_path / "kept", Kept(()))
