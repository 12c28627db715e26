"""The gate at which the steps of a run wait or end: for a hold of the app, a governor, or a stop.

A pass checks the gate at every block, so a hold takes effect within one block.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgezo_runtime.errors import InterruptedRunError, UsageError
from edgezo_runtime.governors.governor import Governor

GLANCE_S = 0.2
"""Interval at which waiting steps ask the governors, and check for a stop."""

_STOPPED = "stopped in a step; the state is that before it"


class PausedError(Exception):
    """Ends the passes of a step that is done again later; the message is the reason."""


class Gate:
    """Decides whether steps may be taken.

    Attributes:
        governors: asked at every block.
        stopped: was `stop` called? No further step is taken then.
        waiting: the reason why a step waits now; None while no step waits.
    """

    def __init__(self) -> None:
        self.governors: tuple[Governor, ...] = ()
        self._holds: dict[object, str] = {}
        self._changed = threading.Condition()
        self._busy = False
        self.stopped = False
        self.waiting: str | None = None

    def stop(self) -> None:
        """Let no further step be taken. Takes no lock, so a signal handler may call it."""
        self.stopped = True

    def hold(self, key: object, reason: str) -> None:
        """Let no step be taken until `release` is called with the same key."""
        with self._changed:
            self._holds = {
                **self._holds,
                key: reason,
            }  # readers need no lock: it is not changed

    def release(self, key: object) -> None:
        """Remove a hold; does nothing if there is none."""
        with self._changed:
            self._holds = {other: why for other, why in self._holds.items() if other != key}
            if not self._holds:
                self.waiting = None  # if a governor has a reason, the next check finds it
            self._changed.notify_all()

    @contextmanager
    def holding(self, reason: str) -> Iterator[None]:
        """Let no step be taken during a `with` block, in addition to other holds."""
        key = object()
        self.hold(key, reason)
        try:
            self.wait_until_idle()
            yield
        finally:
            self.release(key)

    @property
    def held(self) -> str | None:
        """The reason of a hold; None if there is no hold."""
        return next(iter(self._holds.values()), None)

    def reason(self) -> str | None:
        """The reason why no step may be taken; None if one may.

        Raises:
            UsageError: a governor returned neither None nor a string.
        """
        if self._holds:
            return self.held
        for governor in self.governors:
            found = governor()
            if found is not None:
                if not isinstance(found, str):
                    raise UsageError(
                        f"governor {governor!r:.80} returned {found!r:.40}; expected None to "
                        f"continue, or a string with the reason to wait"
                    )
                return found
        return None

    def check(self) -> None:
        """End the pass of a step that may not continue.

        Raises:
            InterruptedRunError: `stop` was called.
            PausedError: the step must wait, and is done again later.
        """
        if self.stopped:
            raise InterruptedRunError(_STOPPED)
        reason = self.reason()
        if reason is not None:
            raise PausedError(reason)

    def wait(self, tell: Callable[[str | None], None], interrupted_by: str | None = None) -> None:
        """Return when a step may be taken.

        Args:
            tell: called with the reason when the wait begins and when the reason changes, and with
                None when the wait is over.
            interrupted_by: the reason that just interrupted a step; None if none was.
        Raises:
            InterruptedRunError: `stop` was called while there was a reason to wait.
        """
        told: str | None = None
        try:
            reason = interrupted_by
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
            PausedError: there is a hold.
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
        """Wait until no step is being taken; False if one still is after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, timeout_s)
