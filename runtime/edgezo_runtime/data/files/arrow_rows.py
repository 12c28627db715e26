"""Parquet and Arrow files, read by pyarrow, which the extra `parquet` installs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any

from edgezo_runtime.data.files.row import MAX_ROW_BYTES, ForeignValue, Row
from edgezo_runtime.errors import DataError, MissingExtraError, printable
from edgezo_runtime.system.typed_json import MAX_VALUES

_ROWS_AT_ONCE = 64
_MOST_COLUMNS = 4096
_THRIFT_BYTES = 64 * 2**20
_THRIFT_ITEMS = 1 << 20

_FILE_START = b"ARROW1"


def read_parquet(
    file: BufferedReader, name: str, know: Callable[[int], None] = lambda rows: None
) -> Iterator[Row]:
    """Read a Parquet file.

    Args:
        file: the file, at its start.
        name: of the file, for messages.
        know: given the number of its rows.

    Yields:
        Each row, numbered from 1; nulls inside of structs are left out, as tables have a column
        for every key that occurs in any row.

    Raises:
        DataError: the file is damaged, or a row is longer than `MAX_ROW_BYTES`.
        MissingExtraError: pyarrow is not installed.

    Memory:
        A row group.
    """
    arrow = _pyarrow(name)
    parquet = _pyarrow(name, "pyarrow.parquet")
    with _told(arrow, name):
        opened = parquet.ParquetFile(
            file,
            thrift_string_size_limit=_THRIFT_BYTES,
            thrift_container_size_limit=_THRIFT_ITEMS,
        )
        know(opened.metadata.num_rows)
        table = _Table(arrow, opened.schema_arrow, name)
        batches = opened.iter_batches(
            batch_size=_ROWS_AT_ONCE, columns=table.plain, use_threads=False
        )
    yield from table.rows(batches)


def read_arrow(file: BufferedReader, name: str) -> Iterator[Row]:
    """Read an Arrow file or stream, such as those of `datasets.Dataset.save_to_disk`.

    Args:
        file: the file, at its start.
        name: of the file, for messages.

    Yields:
        Each row, as `read_parquet` does.

    Raises:
        DataError: the file is damaged, or a row is longer than `MAX_ROW_BYTES`.
        MissingExtraError: pyarrow is not installed.

    Memory:
        A batch.
    """
    arrow = _pyarrow(name)
    whole = file.peek(len(_FILE_START)).startswith(_FILE_START)
    with _told(arrow, name):
        options = arrow.ipc.IpcReadOptions(use_threads=False)
        if whole:
            opened = arrow.ipc.open_file(file, options=options)
            batches = (opened.get_batch(n) for n in range(opened.num_record_batches))
        else:
            opened = arrow.ipc.open_stream(file, options=options)
            batches = iter(opened)
        table = _Table(arrow, opened.schema, name)
    yield from table.rows(batches)


class _Table:
    """The columns of a file, and its rows as Python values."""

    def __init__(self, arrow: Any, schema: Any, name: str) -> None:
        if len(schema) > _MOST_COLUMNS:
            raise DataError(f"{name}: {len(schema)} columns, expected {_MOST_COLUMNS} at most")
        if len(set(schema.names)) != len(schema.names):
            raise DataError(f"{name}: two columns have the same name; rename one")
        self._arrow = arrow
        self._name = name
        self.plain = [field.name for field in schema if _is_plain(arrow, field.type)]
        self._foreign: dict[str, Any] = {
            field.name: ForeignValue(f"{field.type!s:.40}")
            for field in schema
            if field.name not in set(self.plain)
        }

    def rows(self, batches: Iterator[Any]) -> Iterator[Row]:
        """Yield the rows of batches."""
        number = 0
        while True:
            with _told(self._arrow, f"{self._name}, behind row {number}"):
                batch = next(batches, None)
                if batch is None:
                    return
                batch.validate(full=True)
                batch = batch.select(self.plain)
            for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
                part = batch.slice(start, _ROWS_AT_ONCE)
                for fields in self._fields(part, number):
                    number += 1
                    yield Row(fields | self._foreign, number, f"{self._name}, row {number}")

    def _fields(self, part: Any, before: int) -> Iterator[dict[str, Any]]:
        """Yield the fields of some rows; row by row, where they are long."""
        pieces = [part]
        if self._is_large(part):
            pieces = [part.slice(n, 1) for n in range(part.num_rows)]
        for number, piece in enumerate(pieces, before + 1):
            if piece is not part and self._is_large(piece):
                raise DataError(
                    f"{self._name}, row {number}: longer than {MAX_ROW_BYTES // 2**20} MiB, or "
                    f"more than {MAX_VALUES} values; split the row into several"
                )
            with _told(self._arrow, f"{self._name}, behind row {number - 1}"):
                columns = [_values(self._arrow, column) for column in piece.columns]
            if not columns:
                yield from ({} for _ in range(piece.num_rows))
            for values in zip(*columns, strict=True):
                yield dict(zip(self.plain, values, strict=True))

    def _is_large(self, part: Any) -> bool:
        with _told(self._arrow, self._name):
            columns = part.columns
            size = sum(_size(self._arrow, column) for column in columns)
            return size > MAX_ROW_BYTES or sum(_count(c) for c in columns) > MAX_VALUES


def _is_plain(arrow: Any, kind: Any, *, inside: bool = False) -> bool:
    """Tell whether JSON has such values.

    Encodings that can hold much text in few bytes are taken at the top only, where `_size` knows
    them.
    """
    types = arrow.types
    if types.is_struct(kind):
        return all(_is_plain(arrow, field.type, inside=True) for field in kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_plain(arrow, kind.value_type, inside=True)
    if types.is_dictionary(kind):
        return not inside and _is_scalar(arrow, kind.value_type)
    return _is_scalar(arrow, kind) or (not inside and types.is_string_view(kind))


def _is_scalar(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    checks: tuple[Callable[[Any], bool], ...] = (
        types.is_null,
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_string,
        types.is_large_string,
    )
    return any(check(kind) for check in checks)


def _size(arrow: Any, column: Any) -> int:
    """Return about how many bytes the values of a column have."""
    types, rows = arrow.types, len(column)
    if types.is_dictionary(column.type):
        words = column.dictionary
        return rows * max(
            (len(word) for word in words.to_pylist() if isinstance(word, str)), default=8
        )
    if types.is_string_view(column.type):
        return sum(len(value.as_buffer()) for value in column if value.is_valid)
    return int(column.nbytes)


def _count(column: Any) -> int:
    """Return the number of values, those inside of lists and structs included."""
    found = len(column)
    if hasattr(column, "flatten") and column.type.num_fields:
        inner = column.flatten()
        found += sum(map(_count, inner)) if isinstance(inner, list) else _count(inner)
    return found


def _values(arrow: Any, column: Any) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return list(map(_without_nulls, values)) if column.type.num_fields else values


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return list(map(_without_nulls, value)) if isinstance(value, list) else value


def _pyarrow(name: str, module: str = "pyarrow") -> Any:
    try:
        if module == "pyarrow":
            importlib.import_module("pyarrow.ipc")
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{name}: Parquet and Arrow files need pyarrow, which is not installed or does not "
            "load; run pip install 'edgezo[parquet]'"
        ) from error


@contextmanager
def _told(arrow: Any, where: str) -> Iterator[None]:
    """Turn whatever pyarrow raises into an error of edgezo's own."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(
            f"{where}: pyarrow asks for more memory than it gets: the file is damaged, or its "
            "batches are too large; save it again, with smaller batches or row groups"
        ) from error
    except (arrow.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        text = str(error).partition("\n")[0].rstrip(". ") or type(error).__name__
        raise DataError(
            f"{where}: pyarrow cannot read it: {printable(text, 160)}; save the file again"
        ) from error
