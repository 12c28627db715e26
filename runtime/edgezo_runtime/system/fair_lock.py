"""A lock that threads get in the order in which they asked for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from edgezo_runtime.errors import UsageError


class FairLock:
    """Lets one thread in at a time, in the order they came.

    A thread that has just released a plain lock may take it again at once. So a loop of steps would
    keep an evaluation out for ever.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 0
        self._now = 0
        self._gone: set[int] = set()
        self._own = threading.local()

    @property
    def works_for_holder(self) -> bool:
        """Does this thread do a part of what the holder took the lock for?"""
        return getattr(self._own, "for_holder", False)

    @contextmanager
    def for_holder(self) -> Iterator[None]:
        """Mark that this thread works for the holder, and so must not wait for the lock."""
        self._own.for_holder = True
        try:
            yield
        finally:
            self._own.for_holder = False

    def wait(self, timeout_s: float) -> None:
        """Wait until no thread holds the lock, for at most `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._next == self._now, timeout_s)

    def __enter__(self) -> FairLock:
        """Wait for the lock.

        Raises:
            UsageError: this thread would wait for itself.
        """
        if self.works_for_holder:
            raise UsageError(
                "a governor asked a tuner for a pass, and would wait for itself; call the tuner "
                "from another thread"
            )
        with self._changed:
            number = self._next
            self._next += 1
            try:
                while number != self._now:
                    self._changed.wait()
            except BaseException:  # an interrupt: later threads must not wait for this one
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
        """Let the next thread in."""
        with self._changed:
            self._pass_on()

    def _pass_on(self) -> None:
        self._now += 1
        while self._now in self._gone:
            self._gone.remove(self._now)
            self._now += 1
        self._changed.notify_all()
