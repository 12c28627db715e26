"""JSON Lines: every broken file says where and what to do."""

from pathlib import Path

import pytest

from edgezo_runtime.data import records
from edgezo_runtime.data.records import Row, find_split, read_rows, resolve
from edgezo_runtime.errors import DataError, UsageError

GOOD = b'{"text": "a"}\n'


def rows(tmp_path: Path, content: bytes, limit: int | None = None) -> list[Row]:
    path = tmp_path / "f.jsonl"
    path.write_bytes(content)
    return list(read_rows(path, limit))


@pytest.mark.parametrize(
    "content",
    [
        b'{"text": "a"}\n{"text": "b"}\n',
        b'{"text": "a"}\n{"text": "b"}',
        b'{"text": "a"}\r\n{"text": "b"}\r\n',
        b'\xef\xbb\xbf{"text": "a"}\n{"text": "b"}\n\n  \n\n',
        b'{"text": "a"}\n {"text":\t"b"} \n',
    ],
)
def test_read(tmp_path: Path, content: bytes) -> None:
    got = rows(tmp_path, content)
    assert [(row.fields, row.line) for row in got] == [({"text": "a"}, 1), ({"text": "b"}, 2)]
    assert got[1].where == f"{tmp_path / 'f.jsonl'}, line 2"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (GOOD + b'{"text": "a"', r"line 2, column 13: not JSON: expecting ',' delimiter"),
        (GOOD + b'{"text": "a"} {"text": "b"}', "line 2, column 15: not JSON: extra data"),
        (GOOD + b"{'text': 'a'}", "line 2, column 2: not JSON"),
        (GOOD + b"plain", "near 'plain'; expected one JSON object such as"),
        (b"[\n  {}\n]", r"line 1, .* over several lines, .* jq -c '\.\[\]' FILE"),
        (b"{\n", r"over several lines, .* jq -c \. FILE"),
        (b"[{}]", "line 1: found an array, expected a JSON object; write one object per line"),
        (GOOD + b'"text"', "line 2: found a string, expected a JSON object"),
        (GOOD + b"null", "line 2: found null"),
        (GOOD + b"3", "line 2: found the number 3"),
        (GOOD + b'{"x": NaN}', "line 2: NaN is not JSON"),
        (GOOD + b'{"x": -Infinity}', "line 2: -Infinity is not JSON"),
        (GOOD + b'{"x": ' + b"9" * 5000 + b"}", "line 2: Exceeds the limit"),
        (GOOD + b'{"x": ' + b"[" * 200_000, "line 2: nested too deeply"),
        (GOOD + b"\n" + GOOD, "line 2: the line is empty but line 3 is not"),
        (GOOD + b'{"text": "\xff"}', "line 2: byte 11 of the line is not UTF-8"),
        ('{"text": "a"}\n'.encode("utf-16"), "line 1: the file is UTF-16, expected UTF-8"),
        ('{"text": "a"}\n'.encode("utf-32"), "line 1: the file is UTF-32, expected UTF-8"),
        (b"\x1f\x8b\x08\x00", "compressed; unpack it"),
    ],
)
def test_refuses(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        rows(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path / "f.jsonl"))
    assert len(str(caught.value)) < 400


def test_long_line_is_refused_without_reading_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 2**20)
    with pytest.raises(DataError, match="line 2: longer than 1 MiB"):
        rows(tmp_path, GOOD + b'{"text": "' + b"a" * 2**20 + b'"}')


def test_limit_stops_before_a_broken_line(tmp_path: Path) -> None:
    assert len(rows(tmp_path, GOOD * 2 + b"broken", limit=2)) == 2
    with pytest.raises(UsageError, match="1 row or more, not 0"):
        rows(tmp_path, GOOD, limit=0)


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(GOOD)
    (tmp_path / "validation.jsonl").write_bytes(GOOD)
    assert resolve(tmp_path) == tmp_path / "train.jsonl"
    assert resolve(tmp_path, "valid") == resolve(tmp_path, "validation")
    assert resolve(tmp_path / "train.jsonl", "valid") == tmp_path / "train.jsonl"
    assert find_split(tmp_path, "test") is None
    with pytest.raises(DataError, match=r"the folder has no test\.jsonl"):
        resolve(tmp_path, "test")
    with pytest.raises(UsageError, match="split 'dev': expected one of train, valid, test"):
        resolve(tmp_path, "dev")
    (tmp_path / "valid.jsonl").write_bytes(GOOD)
    with pytest.raises(DataError, match=r"valid\.jsonl and validation\.jsonl are all rows for val"):
        resolve(tmp_path, "valid")


@pytest.mark.parametrize("name", ["valid", "validation", "val", "dev"])
def test_names_of_validation_rows(tmp_path: Path, name: str) -> None:
    """Folders with val.jsonl or dev.jsonl seemed to have none."""
    (tmp_path / f"{name}.jsonl").write_bytes(GOOD)
    assert find_split(tmp_path, "valid") == resolve(tmp_path, "valid") == tmp_path / f"{name}.jsonl"
    other = "dev" if name != "dev" else "val"
    (tmp_path / f"{other}.jsonl").write_bytes(GOOD)
    with pytest.raises(DataError, match=rf"{other}\.jsonl"):
        find_split(tmp_path, "valid")


def test_missing_and_special_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        resolve(tmp_path / "nothing")
    with pytest.raises(DataError, match="not a file"):
        resolve("/dev/null")
    with pytest.raises(DataError, match="cannot read the file: No such file"):
        list(read_rows(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": "a", "text": "b"}', "text: repeated key"),
        ('{"text": {"a": 1, "a": 1}}', "a: repeated key"),
        ('{"text": "a", "x": 1e999}', "the number is beyond the range"),
        ('{"text": "a", "x": -1e999}', "the number is beyond the range"),
        ('{"text": [' + "{}," * 600_000 + "0]}", "more than 524288 values"),
    ],
)
def test_what_two_readers_would_read_differently(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(DataError, match=message):
        list(read_rows(path))
