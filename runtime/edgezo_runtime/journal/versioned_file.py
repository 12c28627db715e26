"""JSON files of a run that have a version: written whole or not at all, and read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from edgezo_runtime.errors import RunFileError
from edgezo_runtime.system.files import atomic_write, read_regular
from edgezo_runtime.system.typed_json import (
    LONGEST_TEXT,
    JsonShapeError,
    decode,
    encode,
    parse_object,
)

T = TypeVar("T")


def write_versioned(path: Path, value: object, indent: int | None = None) -> None:
    """Write a dataclass with a field `version`, atomically.

    Args:
        path: the file.
        value: what it holds.
        indent: spaces per level; None for one line.
    Raises:
        RunFileError: the disk did not take it; an older file is as it was.
    """
    text = json.dumps(encode(value), indent=indent, allow_nan=False) + "\n"
    try:
        atomic_write(path, text.encode())
    except OSError as error:
        raise RunFileError(f"{path}: cannot be written: {error.strerror}") from error


def read_versioned(path: Path, kind: type[T], version: int, *, what: str, remedy: str) -> T | None:
    """Read such a file.

    Args:
        path: the file.
        kind: the dataclass.
        version: the one that is read.
        what: what the file should be, for messages.
        remedy: what to do about a damaged one, for messages.
    Returns:
        What it holds; None if there is no such file.
    Raises:
        RunFileError: the file cannot be read, is damaged, or of another version.
    """
    if not path.exists():
        return None
    try:
        content = parse_object(read_regular(path, LONGEST_TEXT).decode("utf-8"))
        if content.get("version") != version:
            raise RunFileError(
                f"{path}: has version {content.get('version')!r:.20}, this edgezo reads {version}; "
                f"use the edgezo that wrote it, or {remedy}"
            )
        return decode(kind, content)
    except OSError as error:
        raise RunFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, JsonShapeError) as error:
        raise RunFileError(f"{path}: not {what}: {error}; {remedy}") from error
