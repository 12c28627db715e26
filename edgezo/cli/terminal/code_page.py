"""What streams can write and read: code pages of terminals lack characters."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO

from edgezo_runtime.errors import UsageError


def can_write(text: str, stream: TextIO | None = None) -> bool:
    """Does the encoding of a stream have all characters of a text?

    Args:
        text: the characters.
        stream: the output; None is stdout.
    """
    encoding = getattr(stream if stream is not None else sys.stdout, "encoding", None) or "ascii"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def forgive_code_pages() -> None:
    """Let stdout and stderr write "\\u6674" for a character that their encodings lack.

    A text that a model has written must not end the command.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def reading_stdin() -> Iterator[None]:
    """Say what to do about bytes of stdin that its encoding does not have.

    Raises:
        UsageError: there are some.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise UsageError(
            f"stdin: byte {error.object[error.start]:#04x} is no character in {error.encoding}; "
            f"write UTF-8 and set PYTHONIOENCODING=utf-8"
        ) from error
