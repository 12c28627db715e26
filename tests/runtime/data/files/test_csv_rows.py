"""Tables as text, against the rows that the `csv` module writes."""

import csv
import io

import pytest

from edgezo_runtime.data.files import csv_rows
from edgezo_runtime.data.files.csv_rows import read_table
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.errors import DataError


def rows(content: bytes, separator: str = ",") -> list[Row]:
    return list(read_table(io.BytesIO(content), "f.csv", separator))  # type: ignore[arg-type]


@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_csv_writes_is_read(separator: str, end: str) -> None:
    expected = [
        {"text": 'he said "yes", twice', "label": "0"},
        {"text": "two\nlines\tand a tab, \u00fc", "label": "1"},
        {"text": None, "label": " great"},
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, ["text", "label"], delimiter=separator, lineterminator=end)
    writer.writeheader()
    writer.writerows(expected)
    got = rows(out.getvalue().encode() + end.encode() * 2, separator)
    assert [row.fields for row in got] == expected
    assert [row.line for row in got] == [2, 3, 5]
    assert got[2].where == "f.csv, line 5"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,label\na\n", "line 2: 1 cells, and the first line names 2 columns"),
        (b"text,label\na,1\na, b,1\n", "line 3: 3 cells, .* with a comma in it into double quotes"),
        (b'text,label\n"a,1\n', "line 2: the file ends inside a quoted cell"),
        (b'text,label\n"a"b,1\n', "line 2: text follows a closing double quote"),
        (b"text,text\na,1\n", "line 1: two columns have the name 'text'"),
        (b"text;label\na;1\n", "line 1: the only column is 'text;label'; a CSV file has a comma"),
        (b"text\tlabel\na\t1\n", "between columns, not '\\\\t'"),
        (b"\ntext\n", "line 1: the line is empty; expected the names"),
        (b"text,label\n\na,1\n", "line 2: the line is empty but line 3 is not"),
        (b"text\n\xff\n", "line 2: byte 1 of the line is not UTF-8"),
        (b"," * 5000 + b"\n", "5001 columns, expected 4096 at most"),
    ],
)
def test_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        rows(content)
    assert str(caught.value).startswith("f.csv")


def test_no_rows() -> None:
    assert rows(b"") == rows(b"text,label\n") == []


def test_a_cell_may_be_long_but_a_row_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The csv module takes 131072 characters unless it is told otherwise."""
    assert rows(b"text\n" + b"a" * 200_000 + b"\n")[0].fields["text"] == "a" * 200_000
    monkeypatch.setattr(csv_rows, "MAX_ROW_BYTES", 1000)
    for row in (b"a" * 2000, b'"' + b"a\n" * 1000 + b'"', b"," * 1001):
        with pytest.raises(DataError, match="the row is longer than"):
            rows(b"text\n" + row)
    assert len(rows(b"text\n" + b"aaaaaaaaa\n" * 1000)) == 1000
