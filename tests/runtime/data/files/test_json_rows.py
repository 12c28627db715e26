"""JSON Lines and JSON arrays: every broken file says where and what to do."""

import io
import json
import random
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pytest

from edgezo_runtime.data.files import json_rows
from edgezo_runtime.data.files.json_rows import read_array, read_lines
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.errors import DataError

GOOD = b'{"text": "a"}\n'
READERS = pytest.mark.parametrize("reader", [read_lines, read_array])


def rows(
    content: bytes, reader: Callable[[BinaryIO, str], Iterator[Row]] = read_lines
) -> list[Row]:
    return list(reader(io.BytesIO(content), "f.jsonl"))


@pytest.mark.parametrize(
    "content",
    [
        b'{"text": "a"}\n{"text": "b"}\n',
        b'{"text": "a"}\n{"text": "b"}',
        b'{"text": "a"}\r\n{"text": "b"}\r\n',
        b'{"text": "a"}\n{"text": "b"}\n\n  \n\n',
        b'{"text": "a"}\n {"text":\t"b"} \n',
    ],
)
def test_lines(content: bytes) -> None:
    got = rows(content)
    assert [(row.fields, row.line) for row in got] == [({"text": "a"}, 1), ({"text": "b"}, 2)]
    assert got[1].where == "f.jsonl, line 2"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + b'{"text": "a"', r"line 2, column 13: not JSON: expecting ',' delimiter"),
        (GOOD + b'{"text": "a"} {"text": "b"}', "line 2, column 15: not JSON: extra data"),
        (GOOD + b"{'text': 'a'}", "line 2, column 2: not JSON"),
        (GOOD + b"plain", "near 'plain'; expected one JSON object such as"),
        (b"{\n", r"over several lines, .* jq -c \. FILE"),
        (GOOD + b'"text"', "line 2: found a string, expected a JSON object"),
        (GOOD + b"null", "line 2: found null"),
        (GOOD + b"3", "line 2: found the number 3"),
        (GOOD + b'{"x": NaN}', "line 2: NaN is not JSON"),
        (GOOD + b'{"x": -Infinity}', "line 2: -Infinity is not JSON"),
        (GOOD + b'{"x": ' + b"9" * 5000 + b"}", "line 2: Exceeds the limit"),
        (GOOD + b'{"x": ' + b"[" * 200_000, "line 2: nested too deeply"),
        (GOOD + b"\n" + GOOD, "line 2: the line is empty but line 3 is not"),
        (GOOD + b'{"text": "\xff"}', "line 2: byte 11 of the line is not UTF-8"),
    ],
)
def test_lines_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        rows(content)
    assert str(caught.value).startswith("f.jsonl")
    assert len(str(caught.value)) < 400


@READERS
def test_a_long_row_is_refused_without_reading_it_all(
    reader: Callable[[BinaryIO, str], Iterator[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_rows, "MAX_ROW_BYTES", 2**20)
    start, end = (b"[", b"]") if reader is read_array else (b"", b"")
    between = b"," if reader is read_array else b"\n"
    file = io.BytesIO(start + GOOD.strip() + between + b'{"text": "' + b"a" * 2**22 + b'"}' + end)
    with pytest.raises(DataError, match="2: longer than 1 MiB"):
        list(reader(file, "f"))
    assert file.tell() < 2**22


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
def test_what_two_readers_would_read_differently(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows(text.encode() + b"\n")
    with pytest.raises(DataError, match=message):
        rows(b"[" + text.encode() + b"]", read_array)


# --- arrays ---


def odd_rows(seed: int) -> list[dict[str, object]]:
    """Rows with all that a reader of brackets could stumble over, some longer than a chunk."""
    chance = random.Random(seed)
    parts = ['"', "\\", "{", "}", "[", "]", ",", "\n", "\u00fc", "\U0001f600", "x" * 70_000, "a"]
    return [
        {
            "text": "".join(
                chance.choices(parts, weights=[9] * 10 + [1, 9], k=chance.randrange(9))
            ),
            "more": [{"n": n, "x": [[], {}]} for n in range(chance.randrange(3))],
            chance.choice(parts[:10]): chance.choice([1.5, True, None, -3]),
        }
        for _ in range(40)
    ]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_arrays_have_the_rows_of_their_lines(indent: int | None, ascii_only: bool) -> None:
    for seed in range(4):
        expected = odd_rows(seed)
        text = json.dumps(expected, indent=indent, ensure_ascii=ascii_only)
        got = rows(f" \n{text} \n".encode(), read_array)
        assert [row.fields for row in got] == expected
        assert [row.line for row in got] == list(range(1, 41))
        assert got[-1].where == "f.jsonl, row 40"


@pytest.mark.parametrize("size", range(1, 9))
def test_chunks_may_end_anywhere(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "_CHUNK_BYTES", size)
    expected = [{"a": 'x\\"{\u00fc\U0001f600'}, {"b": [1, {"c": "]"}]}]
    text = json.dumps(expected, ensure_ascii=False).encode()
    assert [row.fields for row in rows(text, read_array)] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", None),
        (b"[ ]\n", None),
        (b"[{},]", "row 1: not JSON: a comma after the last row"),
        (b"[{}", "row 1: not JSON: the file ends behind the row, expected ',' or ']'"),
        (b"[{} {}]", "row 1: not JSON: found '{' behind the row, expected ','"),
        (b"[{}]{}", "f.jsonl: not JSON: found '{' behind the array"),
        (b"[{}, 3]", "row 2: expected a JSON object .* near '3]'"),
        (b"[[1]]", "row 1: expected a JSON object"),
        (b'[{"a": "b]', "row 1: not JSON: the file ends inside the row"),
        (b'[{"a": 1}}]', "row 1: not JSON: found '}'"),
        (b'[{"a": [1}]}]', "row 1: not JSON: "),
        (b"[{'a': 1}]", "row 1: not JSON: "),
        (b'[{"a": "\xff"}]', "f.jsonl: byte 9 is not UTF-8"),
        (b'[{"a": "\xc3', "f.jsonl: byte 9 is not UTF-8"),
        (b"[" + b'{"a":' * 100_000, "the file ends inside the row"),
        (b"[" + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"]", "nested too deeply"),
        (b"[", "row 1: expected a JSON object"),
    ],
)
def test_arrays_refused(content: bytes, message: str | None) -> None:
    if message is None:
        assert rows(content, read_array) == []
        return
    with pytest.raises(DataError, match=message) as caught:
        rows(content, read_array)
    assert len(str(caught.value)) < 400


def test_an_array_is_read_as_far_as_it_is_used() -> None:
    """Pins that a large array is never held whole."""
    file = io.BytesIO(b"[" + b",".join([b'{"text": "' + b"a" * 1000 + b'"}'] * 2000) + b"]")
    reader = read_array(file, "f")
    for _ in range(10):
        next(reader)
    assert file.tell() <= 1 << 17
