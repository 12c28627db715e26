"""Formats: first bytes go before suffixes, and what is not read is named."""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.data.files.file_formats import FORMATS, read_file, suffix_of
from edgezo_runtime.errors import DataError, MissingExtraError

ROWS: list[dict[str, Any]] = [{"text": "the film", "label": "0"}, {"text": "a b", "label": "1"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
ARRAY = json.dumps(ROWS, indent=1).encode()
CSV = b"text,label\nthe film,0\na b,1\n"


def fields(path: Path, content: bytes) -> list[dict[str, Any]]:
    path.write_bytes(content)
    return [row.fields for row in read_file(path)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("f.jsonl", LINES),
        ("f.json", LINES),
        ("f.json", ARRAY),
        ("f.jsonl", b"\n \t" + ARRAY),
        ("f.ndjson", LINES),
        ("f", LINES),
        ("f.CSV", CSV),
        ("f.tsv", CSV.replace(b",", b"\t")),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text(tmp_path: Path, name: str, content: bytes, packed: bool, mark: bytes) -> None:
    content = mark + content
    assert fields(tmp_path / name, gzip.compress(content) if packed else content) == ROWS
    if packed:
        assert fields(tmp_path / f"{name}.gz", gzip.compress(content)) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.jsonl", b"", "the file is empty"),
        ("f.jsonl", b"\n \n", "the file is empty"),
        ("f.jsonl", b"\xef\xbb\xbf", "the file is empty"),
        ("f.json", b"[]", "or has no rows"),
        ("f.csv", b"text,label\n", "or has no rows"),
        ("f.parquet", b"", "the file is empty"),
        ("f.jsonl", LINES.decode().encode("utf-16"), "the file is UTF-16, expected UTF-8"),
        ("f.csv", CSV.decode().encode("utf-16"), "the file is UTF-16, expected UTF-8"),
        ("f.jsonl", LINES.decode().encode("utf-32"), "the file is UTF-32, expected UTF-8"),
        ("f.xlsx", b"PK\x03\x04", "a zip archive or a spreadsheet; unpack it, or save .* as CSV"),
        ("f.jsonl.zst", b"\x28\xb5\x2f\xfd", "packed by zstd"),
        ("f.parquet", LINES, "no Parquet file, whatever its name says"),
        ("f.arrow", LINES, "no Arrow file, whatever"),
        ("f.jsonl", b"version https://git-lfs.github.com/spec/v1\noid x\n", "git-lfs pointer"),
        ("f.parquet", b"version https://git-lfs.github.com/spec/v1\noid x\n", "run 'git lfs pull'"),
        ("f.gz", gzip.compress(gzip.compress(LINES, mtime=0), mtime=0), "packed by gzip twice"),
        ("f.parquet.gz", gzip.compress(b"PAR1", mtime=0), "packed by gzip; unpack it"),
    ],
)
def test_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        fields(tmp_path / name, content)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the file: No such file"):
        list(read_file(tmp_path / "nothing"))


@pytest.mark.parametrize("content", [b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff"])
def test_pyarrow_is_an_extra(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pins "byte 8 is not UTF-8" for a Parquet file."""
    for name in ("pyarrow", "pyarrow.parquet", "pyarrow.ipc"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgezo\[parquet\]'"):
        fields(tmp_path / "data", content)


def test_suffixes() -> None:
    assert suffix_of(Path("a.b.JSONL.gz")) == ".jsonl"
    assert suffix_of(Path("a.gz")) == ""
    assert set(FORMATS) == {".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow"}
