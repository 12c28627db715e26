"""Where the steps of a run wait, and where they end: holds of the app, governors, a stop.

It is looked at where a pass meets a block, so a hold takes effect within one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgezo_runtime.errors import InterruptedRunError, UsageError
from edgezo_runtime.governors import Governor

GLANCE_S = 0.2
"""How often steps that wait look at governors, and whether they were stopped."""

_STOPPED = "stopped in a step; the state is that before it"


class PausedError(Exception):
    """Ends the passes of a step that is done again later; says why."""


class Gate:
    """Says whether steps may be taken.

    Attributes:
        governors: asked at every block.
        stopped: were the steps of this sitting ended?
        waiting: why a step waits now; None while none does.
    """

    def __init__(self) -> None:
        self.governors: tuple[Governor, ...] = ()
        self._holds: dict[object, str] = {}
        self._changed = threading.Condition()
        self._busy = False
        self.stopped = False
        self.waiting: str | None = None

    def stop(self) -> None:
        """End the steps of this sitting. Takes no lock: a signal handler may call it."""
        self.stopped = True

    def hold(self, key: object, reason: str) -> None:
        """Let no step be taken until `release` is called with the same key."""
        with self._changed:
            self._holds = {**self._holds, key: reason}  # never changed, so readers need no lock

    def release(self, key: object) -> None:
        """Take a hold back; nothing where there is none."""
        with self._changed:
            self._holds = {other: why for other, why in self._holds.items() if other != key}
            if not self._holds:
                self.waiting = None  # a governor may still have a reason: the next look finds it
            self._changed.notify_all()

    @property
    def held(self) -> str | None:
        """Why the app lets no step be taken."""
        return next(iter(self._holds.values()), None)

    def reason(self) -> str | None:
        """Why no step may be taken; None if it may.

        Raises:
            UsageError: a governor said neither.
        """
        if self._holds:
            return self.held
        for governor in self.governors:
            found = governor()
            if found is not None:
                if not isinstance(found, str):
                    raise UsageError(
                        f"governor {governor!r:.80} returned {found!r:.40}; expected None to go "
                        f"on, or a string that says why to wait"
                    )
                return found
        return None

    def check(self) -> None:
        """End the pass of a step that may not go on.

        Raises:
            InterruptedRunError: it was stopped.
            PausedError: it is to be done again later.
        """
        if self.stopped:
            raise InterruptedRunError(_STOPPED)
        reason = self.reason()
        if reason is not None:
            raise PausedError(reason)

    def wait(self, tell: Callable[[str | None], None], given_up: str | None = None) -> None:
        """Return when a step may be taken.

        Args:
            given_up: why a step just was; None where none was.
            tell: called with the reason when the wait begins and when the reason changes, and with
                None when it is over.
        Raises:
            InterruptedRunError: it was stopped while it would wait.
        """
        told: str | None = None
        try:
            reason = given_up
            while True:
                if reason is not None and reason != told:
                    self.waiting = told = reason
                    tell(reason)
                reason = self.reason()
                if reason is None:
                    return
                if self.stopped:
                    raise InterruptedRunError(_STOPPED)
                if reason != told:
                    continue
                with self._changed:
                    if self._holds or self.governors:
                        self._changed.wait(GLANCE_S)
        finally:
            self.waiting = None
            if told is not None:
                tell(None)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Mark that a step is being taken.

        Raises:
            PausedError: a hold came just before.
        """
        with self._changed:
            if self._holds:
                raise PausedError(self.held)
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def wait_until_idle(self, timeout_s: float | None = None) -> bool:
        """Return when no step is being taken; False if one still is after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, timeout_s)
