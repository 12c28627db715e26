"""Tables as text: CSV (RFC 4180) and tab-separated values, whose first line names the columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Literal

from edgezo_runtime.data.files.row import MAX_ROW_BYTES, Row
from edgezo_runtime.errors import DataError

_MOST_COLUMNS = 4096
_WORDS = {",": ("CSV", "comma"), "\t": ("TSV", "tab")}


def read_table(file: BinaryIO, name: str, separator: Literal[",", "\t"]) -> Iterator[Row]:
    """Read a table.

    Every value is text, and an empty cell is None. CRLF and empty lines at the end are allowed.

    Args:
        file: UTF-8, behind the byte order mark.
        name: of the file, for messages.
        separator: between cells.

    Yields:
        Each row, with the line on which it begins.

    Raises:
        DataError: a row has more or fewer cells than the first line, a quote is not closed, a row
            is longer than `MAX_ROW_BYTES`, or the text is not UTF-8.

    Memory:
        One row.
    """
    if csv.field_size_limit() < MAX_ROW_BYTES:  # the limit of the process; `_Lines` has its own
        csv.field_size_limit(MAX_ROW_BYTES)
    lines = _Lines(file, name)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    columns: list[str] | None = None
    empty_line = 0
    while True:
        lines.begin()
        number = lines.number + 1
        where = f"{name}, line {number}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{where}: {_problem(str(error))}") from error
        if cells is None:
            return
        if columns is None:
            columns = _header(cells, where, separator)
            continue
        if not cells:
            empty_line = empty_line or number
            continue
        if empty_line:
            raise DataError(
                f"{name}, line {empty_line}: the line is empty but line {number} is not; remove it"
            )
        if len(cells) != len(columns):
            raise DataError(
                f"{where}: {len(cells)} cells, and the first line names {len(columns)} columns; "
                f"put a cell with a {_WORDS[separator][1]} in it into double quotes"
            )
        fields = {column: cell or None for column, cell in zip(columns, cells, strict=True)}
        yield Row(fields, number, where)


class _Lines:
    """The lines of a file; refuses a row whose lines have too many bytes."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._room = 0
        self.number = 0

    def begin(self) -> None:
        """Begin a row."""
        self._room = MAX_ROW_BYTES

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(self._room + 1)
        if not line:
            raise StopIteration
        self.number += 1
        where = f"{self._name}, line {self.number}"
        self._room -= len(line)
        if self._room < 0:
            raise DataError(
                f"{where}: the row is longer than {MAX_ROW_BYTES // 2**20} MiB; close its double "
                "quotes, or split it"
            )
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8"
            ) from error


def _header(cells: Sequence[str], where: str, separator: str) -> list[str]:
    kind, word = _WORDS[separator]
    if not cells:
        raise DataError(f"{where}: the line is empty; expected the names of the columns")
    if len(cells) > _MOST_COLUMNS:
        raise DataError(f"{where}: {len(cells)} columns, expected {_MOST_COLUMNS} at most")
    repeated = next((name for n, name in enumerate(cells) if name in cells[:n]), None)
    if repeated is not None:
        raise DataError(f"{where}: two columns have the name {repeated[:40]!r}; rename one")
    other = next(
        (mark for mark in ("\t", ";", ",") if mark in cells[0] and mark != separator), None
    )
    if len(cells) == 1 and other:
        raise DataError(
            f"{where}: the only column is {cells[0][:40]!r}; a {kind} file has a {word} between "
            f"columns, not {other!r}; save it so"
        )
    return list(cells)


def _problem(message: str) -> str:
    if "expected after" in message:
        return "text follows a closing double quote; write two of them for one inside a quoted cell"
    if "unexpected end" in message:
        return "the file ends inside a quoted cell; close its double quotes"
    return f"{message}; correct the row"
