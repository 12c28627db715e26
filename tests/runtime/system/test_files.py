"""Atomic writes: the old content or the new one, and nothing left over."""

import hashlib
import os
from pathlib import Path

import pytest

from edgezo_runtime.system import files
from edgezo_runtime.system.files import open_descriptor, open_regular, read_regular, sha256_file


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


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert read_regular(tmp_path / "f", 3) == b"abc"
    with pytest.raises(OSError, match="more than 2 bytes"):
        read_regular(tmp_path / "f", 2)
    (tmp_path / "f").write_bytes(b"")
    assert read_regular(tmp_path / "f", 0) == b""


def test_a_file_that_grows_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file had when it was looked at was believed."""
    path = tmp_path / "f"
    path.write_bytes(b"abcd")
    real = os.fstat

    def smaller(descriptor: int) -> os.stat_result:
        found = list(real(descriptor))
        found[6] = 1
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", smaller)
    assert read_regular(path, 4) == b"abcd"
    with pytest.raises(OSError, match="more than 3 bytes"):
        read_regular(path, 3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("mode", ["rb", "ab", "rb+"])
def test_what_is_no_file(tmp_path: Path, mode: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(OSError, match=r"not a regular file|directory|No such device"):
            open_regular(path, mode)


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="links are followed")
def test_links_are_followed_where_they_may_be(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "f")
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    assert read_regular(tmp_path / "link", 9) == b"abc"
    for name in ("link", "dangling"):
        with pytest.raises(OSError, match="it is a link"):
            open_descriptor(tmp_path / name, os.O_RDWR | os.O_CREAT, follow=False)
    assert not (tmp_path / "made").exists()


def test_the_digest_of_a_file_and_its_progress(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than one read
    (tmp_path / "f").write_bytes(content)
    seen: list[int] = []
    assert sha256_file(tmp_path / "f", seen.append) == hashlib.sha256(content).hexdigest()
    assert sum(seen) == len(content)
    assert len(seen) > 1
