"""Progress on stderr: a live line on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

LIVE_S = 0.1
"""Shortest time between two updates of a live line."""

PLAIN_S = 10.0
"""Shortest time between two plain lines."""


class Progress:
    """A line that shows how far some work is.

    Args:
        stream: the output; None is stderr.
        clock: seconds that never go back.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._live = self._stream.isatty()
        self._last: float | None = None
        self._shown = 0

    def due(self) -> bool:
        """Would an update be shown now?"""
        wait = LIVE_S if self._live else PLAIN_S
        return self._last is None or self._clock() - self._last >= wait

    def update(self, text: str, force: bool = False) -> None:
        """Show a state, unless another was shown just before.

        Args:
            text: one line.
            force: show it in any case.
        """
        if not force and not self.due():
            return
        self._last = self._clock()
        if self._live:
            text = text[: shutil.get_terminal_size().columns - 1]
            self._stream.write("\r" + text.ljust(self._shown))
            self._shown = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def count(self, what: str) -> Callable[[int, int], None]:
        """A callback that takes the number of finished parts and of all parts."""

        def tell(done: int, total: int) -> None:
            self.update(f"{what} {done}/{total}")

        return tell

    def end(self) -> None:
        """Clear the live line and reset the time of the last update."""
        if self._live and self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._stream.flush()
        self._shown = 0
        self._last = None

    def __enter__(self) -> Progress:
        """Return itself; leaving the block clears the live line."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Clear the live line."""
        self.end()
