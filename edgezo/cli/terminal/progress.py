"""Progress on stderr: live lines on a terminal, a plain line every ten seconds elsewhere.

A terminal gets one line that is written over, or, where rich is installed, a block of lines.

Plain lines keep to one rhythm from the first line on: the first update after every tenth second is
shown. The first line of another kind of work comes at once, and shifts nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, TextIO

from edgezo.cli.terminal.board import Board, bar_line, glyphs_for
from edgezo.cli.terminal.live_block import LiveBlock
from edgezo.cli.terminal.quiet import is_quiet

LIVE_S = 0.1
"""Shortest time between two updates of a live line."""

BAR_S = 1.0
"""Seconds of some work before a terminal shows a bar of it."""

PLAIN_S = 10.0
"""Rhythm of plain lines."""


class Cancellable(Protocol):
    """A call that is to come."""

    def cancel(self) -> None:
        """Let it not come."""


class Progress:
    """Shows how far some work is; nothing if the command is quiet.

    Args:
        stream: the output; None is stderr.
        clock: seconds that never go back.
        later: calls a function after some seconds, in a thread.
        block: show blocks of lines where the terminal and the installed packages can; they are
            loaded at once, so that a budget counts them.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], Cancellable] | None = None,
        *,
        block: bool = False,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._quiet = is_quiet()
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._glyphs = glyphs_for(self._stream)
        self._block = (
            _make_block(self._stream) if block and self._live and not self._quiet else None
        )
        self._board: list[str] = []
        self._last: float | None = None
        self._shown = 0
        self._first: float | None = None
        self._beat = 0
        self._begun: set[str] = set()
        self._later = later or _start_timer
        self._lock = threading.RLock()
        self._timer: Cancellable | None = None
        self._part: str | None = None
        self._part_began = 0.0
        self._state: tuple[str, int, int, Callable[[int], str]] = ("", 0, 0, str)

    @property
    def live(self) -> bool:
        """Are lines written over, on a terminal?"""
        return self._live

    def due(self, work: str = "") -> bool:
        """Would an update about this kind of work be shown now?"""
        if self._quiet:
            return False
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
        with self._lock:
            if not self._quiet and (force or self.due(work)):
                self._write(text, work)

    def _write(self, text: str, work: str) -> None:
        self._begin(work)
        if self._block is not None:
            self._block.show([*self._board, text[: self._block.width]])
        elif self._live:
            text = text[: shutil.get_terminal_size().columns - 1]
            self._stream.write("\r" + text.ljust(self._shown))
            self._shown = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def show(self, board: Board, text: str, work: str = "") -> None:
        """Show a block of lines where that is possible, else a line, unless shown just before.

        Args:
            board: the block.
            text: the line.
            work: the kind of work, whose first line is shown at once.
        """
        if self._block is None:
            self.update(text, work=work)
            return
        with self._lock:
            if self.due(work):
                self._begin(work)
                self._board = board.lines(self._block.width, self._glyphs)
                self._block.show(self._board)

    def count(self, what: str, unit: Callable[[int], str] = str) -> Callable[[int, int], None]:
        """A callback that takes the number of finished parts and of all parts; draws a bar.

        Args:
            what: is done.
            unit: words for a number of parts.
        """

        return lambda done, total: self.part(what, done, total, unit)

    def part(self, what: str, done: int, total: int, unit: Callable[[int], str] = str) -> None:
        """Show how much of some work is done.

        A terminal shows a bar as soon as the work takes `BAR_S`, even if nothing more is told.

        Args:
            what: is done.
            done: finished parts.
            total: all parts; 0 if nobody knows.
            unit: words for a number of parts.
        """
        if self._quiet:
            return
        if not self._live:
            if self.due(what):
                self.update(_words(what, done, total, unit), work=what)
            return
        with self._lock:
            if what != self._part:
                self._part, self._part_began = what, self._clock()
            wait = self._part_began + BAR_S - self._clock()
            self._state = (what, done, total, unit)
            if wait <= 0:
                self._draw()
            elif self._timer is None:
                self._timer = self._later(wait, self._draw_late)

    def _draw_late(self) -> None:
        """Draw the last state of work whose first second is over; in a thread of its own."""
        with self._lock:
            self._timer = None
            if self._part is None:
                return
            wait = self._part_began + BAR_S - self._clock()
            if wait > 0:  # of other work, which began later
                self._timer = self._later(wait, self._draw_late)
            else:
                self._draw(force=True)

    def _draw(self, *, force: bool = False) -> None:
        what, done, total, unit = self._state
        if not force and not self.due(what):
            return
        share = done / total if total else None
        text = f"{unit(done)}/{unit(total)}" if total else unit(done) if done else ""
        line = bar_line(what, share, text, self._width(), self._glyphs)
        self.update(line, force=force, work=what)

    def end(self) -> None:
        """Clear the live lines; the next update is shown at once. Plain lines keep their rhythm."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._part = None, None
            if self._block is not None:
                self._block.remove()
            self._board = []
            if self._live and self._shown:
                self._stream.write("\r" + " " * self._shown + "\r")
                self._stream.flush()
            self._shown = 0
            self._last = None

    def _begin(self, work: str) -> None:
        """Note that a state of some work is shown now."""
        self._last = self._clock()
        self._beat = self._beat_at(self._last)
        self._begun.add(work)

    def _width(self) -> int:
        if self._block is not None:
            return self._block.width
        return shutil.get_terminal_size().columns - 1

    def _beat_at(self, now: float) -> int:
        """Number of the interval of the rhythm; the first line begins it."""
        if self._first is None:
            self._first = now
        return int((now - self._first) // PLAIN_S)

    def __enter__(self) -> Progress:
        """Return itself; leaving the `with` block clears the live lines."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Clear the live lines."""
        self.end()


def _words(what: str, done: int, total: int, unit: Callable[[int], str]) -> str:
    """A plain line about how much of some work is done."""
    if total:
        return f"{what} {unit(done)}/{unit(total)}"
    return f"{what}, {unit(done)}" if done else what


def _start_timer(seconds: float, call: Callable[[], None]) -> Cancellable:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer


def _make_block(stream: TextIO) -> LiveBlock | None:
    """A block on a terminal; None where rich is not installed."""
    try:
        return LiveBlock(stream)
    except ImportError:
        return None
