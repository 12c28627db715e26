"""Lines of the user: from a terminal with editing and history, or from a pipe."""

from __future__ import annotations

import contextlib
import sys

import click

from edgezo.cli.terminal.code_page import reading_stdin


class Lines:
    """Reads lines of the standard input.

    Attributes:
        terminal: does a person type them?
    """

    def __init__(self) -> None:
        self.terminal = sys.stdin.isatty() and sys.stdout.isatty()
        if self.terminal:
            with contextlib.suppress(ImportError):  # Windows has editing of its own
                import readline  # noqa: F401

    def read(self) -> str | None:
        """The next line, without its end; None at the end of the input, or after Ctrl-C.

        Raises:
            UsageError: it is not in the encoding of stdin.
        """
        if not self.terminal:
            with reading_stdin():
                line = sys.stdin.readline()
            return line.removesuffix("\n").removesuffix("\r") if line else None
        try:
            with reading_stdin():
                return input("> ")
        except (EOFError, KeyboardInterrupt):
            click.echo()
            return None


def shown_safely(text: str) -> str:
    """A model's text for stdout: on a terminal, without what would steer it."""
    if not sys.stdout.isatty():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
