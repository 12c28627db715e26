"""A lock for what threads of an app share: whoever has waited longest is next."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from edgezo_runtime.errors import UsageError


class FairLock:
    """Lets one thread in at a time, in the order they came.

    A plain lock may be taken again by the thread that has just let it go, so a loop of steps would
    keep an evaluation out for good.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 0
        self._now = 0
        self._gone: set[int] = set()
        self._inside = threading.local()

    @property
    def inside(self) -> bool:
        """Does this thread do a part of what someone has the turn for?"""
        return getattr(self._inside, "here", False)

    @contextmanager
    def part(self) -> Iterator[None]:
        """Mark that this thread does a part of it, and must not wait for another turn."""
        self._inside.here = True
        try:
            yield
        finally:
            self._inside.here = False

    def wait(self, timeout_s: float) -> None:
        """Wait until nobody has the turn; no longer than so much."""
        with self._changed:
            self._changed.wait_for(lambda: self._next == self._now, timeout_s)

    def __enter__(self) -> FairLock:
        """Wait for the turn.

        Raises:
            UsageError: this thread would wait for itself.
        """
        if self.inside:
            raise UsageError(
                "a governor asked a tuner for a pass, and would wait for itself; have another "
                "thread ask"
            )
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
