"""JSON Lines, one object per line, and JSON arrays of objects, which are read object by object."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

from edgezo_runtime.data.files.row import MAX_ROW_BYTES, Row
from edgezo_runtime.data.template import kind_of
from edgezo_runtime.errors import DataError
from edgezo_runtime.system.typed_json import (
    MAX_VALUES,
    JsonShapeError,
    count_values,
    finite_number,
    unique_keys,
)

_CHUNK_BYTES = 1 << 16

_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
"""A whole string, or the quote of one that is not whole; or a bracket."""

_SPACES = re.compile(r"[ \t\r\n]*+")

_EXAMPLE = '{"prompt": "...", "completion": "..."}'


def read_lines(file: BinaryIO, name: str) -> Iterator[Row]:
    """Read JSON Lines.

    CRLF and empty lines at the end are allowed.

    Args:
        file: UTF-8, behind the byte order mark.
        name: of the file, for messages.

    Yields:
        Each row.

    Raises:
        DataError: a line is not one JSON object in UTF-8 of at most `MAX_ROW_BYTES`.

    Memory:
        One line.
    """
    number, empty_line = 0, 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        where = f"{name}, line {number}"
        if len(line) > MAX_ROW_BYTES:
            raise DataError(
                f"{where}: longer than {MAX_ROW_BYTES // 2**20} MiB; "
                "expected one JSON object per line, so split the text into several rows"
            )
        if not line.strip():
            empty_line = empty_line or number
            continue
        if empty_line:
            raise DataError(
                f"{name}, line {empty_line}: the line is empty but line {number} is not; "
                "expected one JSON object per line, so remove the empty line"
            )
        yield Row(_parse_line(line, where), number, where)


def read_array(file: BinaryIO, name: str) -> Iterator[Row]:
    """Read a JSON array of objects.

    Args:
        file: UTF-8, behind the byte order mark.
        name: of the file, for messages.

    Yields:
        Each object, numbered from 1.

    Raises:
        DataError: the text is not one array of objects, or one of them is longer than
            `MAX_ROW_BYTES`.

    Memory:
        Twice the text of the longest object.
    """
    window, number = _Window(file, name), 0
    if window.next_char() != "[":
        raise DataError(f"{name}: not a JSON array; expected '[' at the start")
    window.skip()
    char = window.next_char()
    while char != "]":
        number += 1
        where = f"{name}, row {number}"
        yield Row(_parse(window.take_object(where), where, one_line=False), number, where)
        char = window.next_char()
        if char == ",":
            window.skip()
            char = window.next_char()
            if char == "]":
                raise DataError(f"{where}: not JSON: a comma after the last row; remove it")
        elif char != "]":
            found = f"found {char!r}" if char else "the file ends"
            raise DataError(f"{where}: not JSON: {found} behind the row, expected ',' or ']'")
    window.skip()
    if char := window.next_char():
        raise DataError(
            f"{name}: not JSON: found {char!r} behind the array; a file has one array of rows, or "
            "one row per line"
        )


class _Window:
    """The part of a text that is being read."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._place = 0
        self._bytes = 0

    def next_char(self) -> str:
        """Go to the next character that is no space, and return it; empty at the end."""
        while True:
            spaces = _SPACES.match(self._text, self._place)
            self._place = self._place if spaces is None else spaces.end()
            if self._place < len(self._text) or not self._grow():
                return self._text[self._place : self._place + 1]

    def skip(self) -> None:
        """Go behind one character."""
        self._place += 1

    def take_object(self, where: str) -> str:
        """Return the text of the object that begins here, and go behind it.

        Raises:
            DataError: something else begins here, or the object has no end.
        """
        if self._text[self._place : self._place + 1] != "{":
            while len(self._text) - self._place < 40 and self._grow():
                pass
            start = self._text[self._place : self._place + 40]
            raise DataError(f"{where}: expected a JSON object such as {_EXAMPLE}, near {start!r}")
        depth, seen = 0, 0  # `seen` counts from the start of the object
        while True:
            for token in _TOKEN.finditer(self._text, self._place + seen):
                char = self._text[token.start()]
                if char == '"' and token.end() - token.start() == 1:
                    seen = token.start() - self._place
                    break
                depth += (char in "{[") - (char in "}]")
                if depth == 0:
                    begin, self._place = self._place, token.end()
                    return self._text[begin : self._place]
                seen = token.end() - self._place
            if len(self._text) - self._place > MAX_ROW_BYTES:
                raise DataError(
                    f"{where}: longer than {MAX_ROW_BYTES // 2**20} MiB; split the text into "
                    "several rows"
                )
            if not self._grow():
                raise DataError(f"{where}: not JSON: the file ends inside the row")

    def _grow(self) -> bool:
        """Read as much again as there is; False at the end of the file."""
        rest = self._text[self._place :]
        data = self._file.read(max(_CHUNK_BYTES, len(rest)))
        try:
            more = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            behind = self._bytes - (len(error.object) - len(data)) + error.start
            raise DataError(
                f"{self._name}: byte {behind + 1} is not UTF-8; save the file as UTF-8"
            ) from error
        self._bytes += len(data)
        self._text, self._place = rest + more, 0
        return bool(data)


def _parse_line(line: bytes, where: str) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8"
        ) from error
    return _parse(text, where, one_line=True)


def _parse(text: str, where: str, *, one_line: bool) -> dict[str, Any]:
    if count_values(text) > MAX_VALUES:
        raise DataError(f"{where}: more than {MAX_VALUES} values; split the row into several")
    try:
        value = json.loads(
            text,
            object_pairs_hook=unique_keys,
            parse_constant=_refuse_constant,
            parse_float=finite_number,
        )
    except json.JSONDecodeError as error:
        place = f"{where}, column {error.colno}" if one_line else where
        advice = _advice_for_lines(text) if one_line else "correct the row"
        raise DataError(f"{place}: {_json_problem(error, text)}; {advice}") from error
    except RecursionError:
        raise DataError(f"{where}: nested too deeply, expected one flat JSON object") from None
    except JsonShapeError as error:
        raise DataError(f"{where}: {error}; correct the row") from error
    except ValueError as error:  # a constant such as NaN, or an integer of thousands of digits
        raise DataError(f"{where}: {_short(str(error))}; expected plain JSON numbers") from error
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: found {kind_of(value)}, expected a JSON object such as {_EXAMPLE}"
        )
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _json_problem(error: json.JSONDecodeError, text: str) -> str:
    near = text[max(0, error.pos - 20) : error.pos + 20].strip()
    return f"not JSON: {error.msg.lower()}, near {near!r}"


def _advice_for_lines(text: str) -> str:
    if text.strip() == "{":
        return (
            "the file looks like one JSON object over several lines, expected an array of rows, or "
            "one row per line: jq -c . FILE > FILE.jsonl"
        )
    return f"expected one JSON object such as {_EXAMPLE}"


def _short(message: str) -> str:
    return message if len(message) <= 80 else f"{message[:77]}..."
