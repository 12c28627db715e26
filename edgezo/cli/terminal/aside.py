"""What libraries of others print while a command runs: on stderr, as plain as it has to be."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import TextIO

from edgezo.cli.terminal.quiet import is_quiet

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
"""Sequences that set colours and the like, and those that set titles and links."""


class Aside(io.TextIOBase):
    """A stream for `contextlib.redirect_stdout`.

    A quiet command prints nothing of it. Colours are for terminals that want them. Characters that
    stderr cannot write become question marks: the library must not fail because of them.

    Args:
        stream: the output; None is stderr.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = is_quiet()
        dull = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        self._colours = self._stream.isatty() and not dull

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the output."""
        return getattr(self._stream, "encoding", None) or "ascii"

    def isatty(self) -> bool:
        """Is it a terminal that wants colours?"""
        return self._colours

    def writable(self) -> bool:
        """It takes text."""
        return True

    def write(self, text: str) -> int:
        """Write a text."""
        if not self._quiet:
            plain = text if self._colours else _ESCAPE.sub("", text)
            self._stream.write(plain.encode(self.encoding, "replace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        """Flush the output."""
        self._stream.flush()
