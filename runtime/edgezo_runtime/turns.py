"""A lock for what threads of an app share: whoever has waited longest is next."""

from __future__ import annotations

import threading
from types import TracebackType


class Turns:
    """Lets one thread in at a time, in the order they came.

    A plain lock may be taken again by the thread that has just let it go, so a loop of steps would
    keep an evaluation out for good.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 0
        self._now = 0
        self._gone: set[int] = set()

    def __enter__(self) -> Turns:
        """Wait for the turn."""
        with self._changed:
            number = self._next
            self._next += 1
            try:
                while number != self._now:
                    self._changed.wait()
            except BaseException:  # an interrupt: those behind must not wait for this one
                if number == self._now:
                    self._pass_on()
                else:
                    self._gone.add(number)
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the next one in."""
        with self._changed:
            self._pass_on()

    def _pass_on(self) -> None:
        self._now += 1
        while self._now in self._gone:
            self._gone.remove(self._now)
            self._now += 1
        self._changed.notify_all()
