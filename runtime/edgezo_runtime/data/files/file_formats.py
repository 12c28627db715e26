"""Formats of data files: a file's first bytes and its suffix say how it is read."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, Literal

from edgezo_runtime.data.files.arrow_rows import read_arrow, read_parquet
from edgezo_runtime.data.files.csv_rows import read_table
from edgezo_runtime.data.files.json_rows import read_array, read_lines
from edgezo_runtime.data.files.packed import GZIP_START, UnpackedFile
from edgezo_runtime.data.files.place import Place
from edgezo_runtime.data.files.row import Row
from edgezo_runtime.errors import DataError
from edgezo_runtime.system.files import open_regular
from edgezo_runtime.system.lfs_pointer import pointer_problem

Format = Literal["json", "csv", "tsv", "parquet", "arrow"]

FORMATS: dict[str, Format] = {
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
"""Suffix -> format. Files with other suffixes are read as JSON."""

PACKED_SUFFIX = ".gz"

_STARTS: tuple[tuple[bytes, Format], ...] = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),
)
_OTHER_STARTS = (
    (b"PK\x03\x04", "a zip archive or a spreadsheet; unpack it, or save the table as CSV"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd; unpack it with unzstd first"),
    (b"BZh", "packed by bzip2; unpack it with bunzip2 first"),
    (b"\xfd7zXZ\x00", "packed by xz; unpack it with unxz first"),
    (b"SQLite format 3\x00", "an SQLite database; export its table as CSV"),
)
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_START_BYTES = 64


def suffix_of(path: Path) -> str:
    """Return the suffix that names the format, without that of gzip, in lower case."""
    inner = path.with_suffix("") if path.suffix.lower() == PACKED_SUFFIX else path
    return inner.suffix.lower()


def read_file(path: Path, place: Place | None = None, before: int = 0) -> Iterator[Row]:
    """Read the rows of a file.

    Args:
        path: the file.
        place: is told how far the reading is.
        before: rows of the files before it, for `place`.

    Yields:
        Each row.

    Raises:
        DataError: the file cannot be read, has no rows, or is not what its first bytes or its
            suffix say.
        MissingExtraError: the file needs pyarrow, which is not installed.

    Memory:
        One row of JSON and CSV; a row group or a batch of Parquet and Arrow.
    """
    name, empty = str(path), True
    place = place or Place([path])
    with _opened(path, name, lambda stored: place.enter(before, stored)) as file:
        for row in _rows(file, path, name, place):
            empty = False
            yield row
    if empty:
        raise DataError(f"{name}: the file is empty, or has no rows")


@contextmanager
def _opened(path: Path, name: str, note: Callable[[FileIO], None]) -> Iterator[BufferedReader[Any]]:
    """Open a file, and unpack what gzip packed; `note` is given the file as it is stored."""
    try:
        stored = open_regular(path)
        note(stored)
        with BufferedReader(stored) as file:
            if not file.peek(2).startswith(GZIP_START):
                yield file
                return
            with BufferedReader(UnpackedFile(file, name)) as unpacked:
                yield unpacked
    except OSError as error:
        raise DataError(f"{name}: cannot read the file: {error.strerror or error}") from error


def _rows(file: BufferedReader, path: Path, name: str, place: Place) -> Iterator[Row]:
    start = file.peek(_START_BYTES)[:_START_BYTES]
    if not start:
        return iter(())
    form = _format_of(start, path, name)
    if form in ("parquet", "arrow"):
        if not file.seekable():
            raise DataError(f"{name}: packed by gzip; unpack it with gunzip first")
        if form == "parquet":
            return read_parquet(file, name, place.know)
        return read_arrow(file, name)
    if start.startswith(codecs.BOM_UTF8):
        file.read(len(codecs.BOM_UTF8))
        start = start[len(codecs.BOM_UTF8) :]
    if form == "csv":
        return read_table(file, name, ",")
    if form == "tsv":
        return read_table(file, name, "\t")
    return read_array(file, name) if start.lstrip().startswith(b"[") else read_lines(file, name)


def _format_of(start: bytes, path: Path, name: str) -> Format:
    """Tell the format of a file.

    Raises:
        DataError: it is none that is read.
    """
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            raise DataError(f"{name}: the file is {encoding}, expected UTF-8; save it as UTF-8")
    for signature, form in _STARTS:
        if start.startswith(signature):
            return form
    for signature, what in (*_OTHER_STARTS, (GZIP_START, "packed by gzip twice; unpack it first")):
        if start.startswith(signature):
            raise DataError(f"{name}: the file is {what}")
    if problem := pointer_problem(path):
        raise DataError(f"{name}: {problem}")
    form = FORMATS.get(suffix_of(path), "json")
    if form in ("parquet", "arrow"):
        kind = "Parquet" if form == "parquet" else "Arrow"
        raise DataError(
            f"{name}: no {kind} file, whatever its name says; download or save it again"
        )
    return form
