"""Atomic writes: the old content or the new one, and nothing left over."""

import os
from pathlib import Path

import pytest

from edgezo_runtime.system import files


def test_atomic_write_makes_and_replaces_a_file(tmp_path: Path) -> None:
    target = tmp_path / "state.bin"
    files.atomic_write(target, b"one")
    assert target.read_bytes() == b"one"
    files.atomic_write(str(target), b"three")
    assert target.read_bytes() == b"three"
    assert os.listdir(tmp_path) == ["state.bin"]


def test_a_failing_writer_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "state.bin"
    files.atomic_write(target, b"old")

    def write_half() -> None:
        with files.atomic_path(target) as temporary:
            temporary.write_bytes(b"ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state.bin"]


def test_a_failing_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "state.bin"
    files.atomic_write(target, b"old")

    def refuse(source: object, destination: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no space left"):
        files.atomic_write(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state.bin"]


def test_data_is_synced_before_the_rename_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_replace = os.replace

    def replace(source: Path, destination: Path) -> None:
        calls.append("rename")
        real_replace(source, destination)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(files, "sync_descriptor", lambda descriptor: calls.append("file"))
    monkeypatch.setattr(files, "sync_directory", lambda path: calls.append("directory"))
    files.atomic_write(tmp_path / "x", b"data")
    assert calls == ["file", "rename", "directory"]


@pytest.mark.skipif(os.name == "nt", reason="posix permissions")
def test_permissions_of_a_replaced_file_are_kept(tmp_path: Path) -> None:
    target = tmp_path / "state.bin"
    files.atomic_write(target, b"one")
    assert target.stat().st_mode & 0o777 == 0o644
    target.chmod(0o600)
    files.atomic_write(target, b"two")
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_missing_directory_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.atomic_write(tmp_path / "absent" / "x", b"data")
    with pytest.raises(FileNotFoundError):
        files.sync_directory(tmp_path / "absent")
