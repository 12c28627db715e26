"""Lines on a terminal that are redrawn in place, by rich."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.live import Live


class LiveBlock:
    """Lines that are redrawn in place, until they are removed.

    rich moves the cursor on every terminal, those of Windows too. It follows NO_COLOR.

    Args:
        stream: the terminal.
    Raises:
        ImportError: rich is not installed.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        self._console = Console(file=stream, highlight=False, soft_wrap=False)
        self._text, self._make = Text, Live
        self._shown: Live | None = None

    @property
    def width(self) -> int:
        """Characters of a line."""
        return max(10, self._console.width - 1)

    def show(self, lines: Sequence[str]) -> None:
        """Draw lines in place of those before."""
        text = self._text("\n".join(lines), no_wrap=True, overflow="crop")
        text.highlight_regex("[\u2588#]{2,}", "cyan")
        text.highlight_regex("\u2591+", "bright_black")
        text.highlight_regex(r"^\S+.*? {2}", "bold")
        if self._shown is None:
            self._shown = self._make(
                console=self._console, auto_refresh=False, transient=True,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._shown.start()
        self._shown.update(text, refresh=True)

    def remove(self) -> None:
        """Remove the lines."""
        shown, self._shown = self._shown, None
        if shown is not None:
            shown.stop()
