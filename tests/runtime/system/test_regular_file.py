"""Files that are files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgezo_runtime.system.files import open_descriptor, open_regular, read_regular


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
