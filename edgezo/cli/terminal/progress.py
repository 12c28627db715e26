"""Progress on stderr: a live line on a terminal, a plain line every ten seconds elsewhere.

Plain lines keep to one rhythm from the first line on: the first update after every tenth second is
shown. The first line of another kind of work comes at once, and shifts nothing.
"""

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
"""Rhythm of plain lines."""


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
        self._first: float | None = None
        self._beat = 0
        self._begun: set[str] = set()

    def due(self, work: str = "") -> bool:
        """Would an update about this kind of work be shown now?"""
        if not self._live:
            return work not in self._begun or self._beat_at(self._clock()) > self._beat
        return self._last is None or self._clock() - self._last >= LIVE_S

    def update(self, text: str, force: bool = False, work: str = "") -> None:
        """Show a state, unless another was shown just before.

        Args:
            text: one line.
            force: show it in any case.
            work: the kind of work, whose first line is shown at once.
        """
        if not force and not self.due(work):
            return
        self._last = self._clock()
        self._beat = self._beat_at(self._last)
        self._begun.add(work)
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
            self.update(f"{what} {done}/{total}", work=what)

        return tell

    def end(self) -> None:
        """Clear the live line; the next update is shown at once. Plain lines keep their rhythm."""
        if self._live and self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._stream.flush()
        self._shown = 0
        self._last = None

    def _beat_at(self, now: float) -> int:
        """Number of the interval of the rhythm; the first line begins it."""
        if self._first is None:
            self._first = now
        return int((now - self._first) // PLAIN_S)

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
