"""Files of gzip: their content, their damages, and what was made to fill memory."""

import gzip
from io import BufferedReader
from pathlib import Path

import pytest

from edgezo_runtime.data.files import packed
from edgezo_runtime.data.files.packed import UnpackedFile
from edgezo_runtime.errors import DataError
from edgezo_runtime.system.files import open_regular


def unpack(path: Path, content: bytes) -> bytes:
    path.write_bytes(content)
    with BufferedReader(open_regular(path)) as file:
        return BufferedReader(UnpackedFile(file, "f.gz")).read()


def test_content(tmp_path: Path) -> None:
    text = b"rows\n" * 1000
    assert unpack(tmp_path / "f", gzip.compress(text)) == text
    assert unpack(tmp_path / "f", gzip.compress(text) + gzip.compress(b"more")) == text + b"more"


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-9],
        lambda data: data[:-8] + b"\0" * 8,
        lambda data: data[:12] + b"\xff" * 9 + data[21:],
        lambda data: data[:2] + b"\x07" + data[3:],
        lambda data: data + b"rest",
    ],
)
def test_damages(tmp_path: Path, change: object) -> None:
    assert callable(change)
    with pytest.raises(DataError, match=r"^f\.gz: damaged gzip file"):
        unpack(tmp_path / "f", change(gzip.compress(bytes(range(256)) * 9)))


def test_what_unpacks_to_a_thousand_times_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "_ALWAYS_BYTES", 1 << 16)
    bomb = gzip.compress(b"a" * 10**7)
    with pytest.raises(DataError, match=f"unpacks to more than {200 * len(bomb)} bytes"):
        unpack(tmp_path / "f", bomb)
