"""Parquet and Arrow, written by pyarrow: values, nulls, limits, damages."""

import datetime
import io
import random
from collections.abc import Callable
from io import BufferedReader, BytesIO
from typing import Any

import pytest

pa: Any = pytest.importorskip("pyarrow")
pq: Any = pytest.importorskip("pyarrow.parquet")

from edgezo_runtime.data.files import arrow_rows  # noqa: E402
from edgezo_runtime.data.files.arrow_rows import read_arrow, read_parquet  # noqa: E402
from edgezo_runtime.data.files.row import ForeignValue, Row  # noqa: E402
from edgezo_runtime.errors import DataError  # noqa: E402


def parquet(table: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=50)
    return out.getvalue()


def stream(table: Any) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=70)
    return out.getvalue()


def file(table: Any) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=70)
    return out.getvalue()


WRITERS: list[Callable[[Any], bytes]] = [parquet, stream, file]
EVERY = pytest.mark.parametrize("write", WRITERS)


def rows(content: bytes) -> list[Row]:
    read = read_parquet if content.startswith(b"PAR1") else read_arrow
    return list(read(BufferedReader(BytesIO(content)), "f"))  # type: ignore[type-var]


@EVERY
def test_values(write: Callable[[Any], bytes]) -> None:
    table = pa.table(
        {
            "text": ["a\u00fc", None, ""] * 60,
            "label": pa.array([0, 1, None] * 60, pa.int8()),
            "score": [0.5, None, 1.0] * 60,
            "good": [True, None, False] * 60,
            "answers": [["a", "b"], [], None] * 60,
            "word": pa.array(["x", "y", "x"] * 60).dictionary_encode(),
            "large": pa.array(["x", "y", None] * 60, pa.large_string()),
            "nothing": pa.nulls(180),
        }
    )
    got = rows(write(table))
    assert [row.fields for row in got] == table.to_pylist()
    assert [row.line for row in got] == list(range(1, 181))
    assert got[6].where == "f, row 7"


@EVERY
def test_messages_have_no_keys_of_other_messages(write: Callable[[Any], bytes]) -> None:
    """Tables have a column for every key that some message has; `arguments` have them too."""
    messages = [
        {"role": "user", "content": "look"},
        {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"x": 1}}]},
        {"role": "assistant", "tool_calls": [{"name": "g", "arguments": {"y": "z"}}]},
    ]
    got = rows(write(pa.Table.from_pylist([{"messages": messages}, {"messages": None}])))
    assert got[0].fields == {"messages": messages}
    assert got[1].fields == {"messages": None}


@EVERY
def test_what_json_lacks_is_named(write: Callable[[Any], bytes]) -> None:
    when = datetime.datetime(2024, 1, 1)
    table = pa.table({"when": [when], "text": ["a"], "image": [{"bytes": b"x", "path": "p"}]})
    (row,) = rows(write(table))
    assert row.fields == {
        "text": "a",
        "when": ForeignValue("timestamp[us]"),
        "image": ForeignValue(f"{table.schema.field('image').type!s:.40}"),
    }


@EVERY
def test_limits(write: Callable[[Any], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_rows, "MAX_ROW_BYTES", 2000)
    assert len(rows(write(pa.table({"text": ["a" * 1500] * 100})))) == 100
    with pytest.raises(DataError, match="f, row 3: longer than"):
        rows(write(pa.table({"text": ["a", "b", "c" * 2001, "d"]})))
    monkeypatch.setattr(arrow_rows, "MAX_VALUES", 100)
    assert len(rows(write(pa.table({"n": pa.array([[1] * 50] * 9, pa.list_(pa.int8()))})))) == 9
    for inner in (pa.null(), pa.int8()):
        lists = pa.array([[None], [None] * 101], pa.list_(inner))
        with pytest.raises(DataError, match=r"f, row 2: .* more than 100 values"):
            rows(write(pa.table({"n": lists})))


def test_a_word_may_stand_for_much_text() -> None:
    """A table of indices into one long word is small, and its rows are not."""
    word = pa.DictionaryArray.from_arrays(pa.array([0] * 99, pa.int8()), ["a" * 2**20])
    content = stream(pa.table({"text": word}))
    reader = read_arrow(BufferedReader(BytesIO(content)), "f")  # type: ignore[type-var]
    assert next(reader).fields["text"] == "a" * 2**20


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table([["a"], ["b"]], ["text", "text"]), "two columns have the same name"),
        (pa.table({str(n): [1] for n in range(4097)}), "4097 columns, expected 4096 at most"),
    ],
)
def test_odd_tables(table: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows(stream(table))


@EVERY
def test_damaged(write: Callable[[Any], bytes]) -> None:
    """Whatever pyarrow raises is an error of edgezo's own."""
    table = pa.table({"text": ["a", "bc"] * 40, "more": [[{"x": 1}], []] * 40})
    content, chance, refused = write(table), random.Random(0), 0
    for _ in range(60):
        data = bytearray(content)
        for _ in range(4):
            data[chance.randrange(8, len(data))] = chance.randrange(256)
        try:
            rows(bytes(data))
        except DataError:
            refused += 1
    assert refused > 5
    for size in (8, len(content) // 2, len(content) - 9):
        with pytest.raises(DataError, match="pyarrow cannot read it"):
            rows(content[:size] if write is not stream else content[: size // 2])
