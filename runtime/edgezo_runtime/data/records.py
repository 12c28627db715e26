"""JSON Lines files: one object per line, with the place of every error."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from edgezo_runtime.data.template import kind_of
from edgezo_runtime.errors import DataError, UsageError
from edgezo_runtime.system.files import open_regular
from edgezo_runtime.system.typed_json import (
    MAX_VALUES,
    JsonShapeError,
    count_values,
    finite_number,
    unique_keys,
)

MAX_LINE_BYTES = 16 * 2**20
"""Limit on a line: a longer line is no JSON Lines row, and too long for any model."""

SPLIT_FILES: dict[str, tuple[str, ...]] = {
    "train": ("train.jsonl",),
    "valid": ("valid.jsonl", "validation.jsonl", "val.jsonl", "dev.jsonl"),
    "test": ("test.jsonl",),
}
"""Names that the file of a split may have; a folder has at most one of them."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file.

    Attributes:
        fields: the JSON object.
        line: number of the line, from 1.
        where: "file, line n", for messages.
    """

    fields: dict[str, Any]
    line: int
    where: str


def find_split(path: str | Path, split: str) -> Path | None:
    """Find the file of a split in a folder.

    Args:
        path: the folder.
        split: "train", "valid" (or "validation") or "test".

    Returns:
        The file; None if the folder has none.

    Raises:
        UsageError: the split is unknown.
        DataError: several of its files are there, such as valid.jsonl and dev.jsonl.
    """
    names = SPLIT_FILES.get("valid" if split == "validation" else split)
    if names is None:
        raise UsageError(f"split '{split}': expected one of {', '.join(SPLIT_FILES)}")
    found = [Path(path, name) for name in names if Path(path, name).is_file()]
    if len(found) > 1:
        names_found = " and ".join(file.name for file in found)
        raise DataError(
            f"{path}: {names_found} are all rows for validation; name the file to use, or "
            f"keep only one"
        )
    return found[0] if found else None


def resolve(path: str | Path, split: str | None = None) -> Path:
    """Find the file to read.

    Args:
        path: a file, or a folder with train.jsonl, test.jsonl, and valid.jsonl or another name of
            `SPLIT_FILES`.
        split: the file of a folder; None means train. It has no effect on a single file.

    Returns:
        The file.

    Raises:
        UsageError: the split is unknown.
        DataError: there is no such file or folder, or the folder does not have the split.
    """
    path = Path(path)
    if path.is_dir():
        split = "train" if split is None else split
        file = find_split(path, split)
        if file is None:
            names = " or ".join(SPLIT_FILES["valid" if split == "validation" else split])
            raise DataError(f"{path}: the folder has no {names}; add it, or name a file instead")
        return file
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; name a .jsonl file or a folder of them")
    if not path.is_file():
        raise DataError(f"{path}: not a file; save the rows to a .jsonl file first")
    return path


def read_rows(path: str | Path, limit: int | None = None) -> Iterator[Row]:
    """Read a JSON Lines file, line by line.

    A UTF-8 byte order mark, CRLF and empty lines at the end are allowed.

    Args:
        path: the file.
        limit: number of rows after which to stop; None reads all.

    Yields:
        Each row.

    Raises:
        UsageError: `limit` is below 1.
        DataError: the file cannot be read, is empty, or has a line that is not one JSON object in
            UTF-8 of at most `MAX_LINE_BYTES`.

    Memory:
        One line.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"{path}: the limit must be 1 row or more, not {limit}")
    rows = 0
    try:
        with BufferedReader(open_regular(path)) as file:
            for row in _rows(file, str(path)):
                yield row
                rows += 1
                if rows == limit:
                    return
    except OSError as error:
        raise DataError(f"{path}: cannot read the file: {error.strerror}") from error
    if rows == 0:
        raise DataError(f"{path}: the file is empty; expected one JSON object per line")


def _rows(file: BinaryIO, name: str) -> Iterator[Row]:
    number, empty_line = 0, 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        where = f"{name}, line {number}"
        if len(line) > MAX_LINE_BYTES:
            raise DataError(
                f"{where}: longer than {MAX_LINE_BYTES // 2**20} MiB; "
                "expected one JSON object per line, so split the text into several rows"
            )
        if number == 1:
            line = _without_mark(line, where)
        if not line.strip():
            empty_line = empty_line or number
            continue
        if empty_line:
            raise DataError(
                f"{name}, line {empty_line}: the line is empty but line {number} is not; "
                "expected one JSON object per line, so remove the empty line"
            )
        yield Row(_parse(line, where), number, where)


def _without_mark(line: bytes, where: str) -> bytes:
    for mark, encoding in (
        (codecs.BOM_UTF32_LE, "UTF-32"),
        (codecs.BOM_UTF32_BE, "UTF-32"),
        (codecs.BOM_UTF16_LE, "UTF-16"),
        (codecs.BOM_UTF16_BE, "UTF-16"),
    ):
        if line.startswith(mark):
            raise DataError(f"{where}: the file is {encoding}, expected UTF-8; save it as UTF-8")
    if line.startswith(b"\x1f\x8b"):
        raise DataError(f"{where}: the file is compressed; unpack it with gunzip first")
    return line.removeprefix(codecs.BOM_UTF8)


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8"
        ) from error
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
        raise DataError(
            f"{where}, column {error.colno}: {_json_problem(error, text)}; {_json_advice(text)}"
        ) from error
    except RecursionError:
        raise DataError(f"{where}: nested too deeply, expected one flat JSON object") from None
    except JsonShapeError as error:
        raise DataError(f"{where}: {error}; correct the row") from error
    except ValueError as error:  # a constant such as NaN, or an integer of thousands of digits
        raise DataError(f"{where}: {_short(str(error))}; expected plain JSON numbers") from error
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: found {kind_of(value)}, expected a JSON object; {_advice(value)}"
        )
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _json_problem(error: json.JSONDecodeError, text: str) -> str:
    near = text[max(0, error.pos - 20) : error.pos + 20].strip()
    return f"not JSON: {error.msg.lower()}, near {near!r}"


def _json_advice(text: str) -> str:
    start = text.strip()
    if start in ("[", "[{", "{"):
        query = "." if start == "{" else "'.[]'"
        return (
            "the file looks like JSON over several lines, expected one object per line: "
            f"jq -c {query} FILE > FILE.jsonl"
        )
    return 'expected one JSON object such as {"prompt": "...", "completion": "..."}'


def _advice(value: object) -> str:
    if isinstance(value, list):
        return "write one object per line: jq -c '.[]' FILE > FILE.jsonl"
    return 'such as {"prompt": "...", "completion": "..."}'


def _short(message: str) -> str:
    return message if len(message) <= 80 else f"{message[:77]}..."
