"""A governor that waits while the app is in the foreground."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType


class Foreground:
    """Makes steps wait while the app is in the foreground, as the app or a function reports.

        foreground = Foreground()
        tuner = Tuner.open(..., governors=[foreground])
        with foreground:  # in any thread, and as often as needed
            answer(user)

    Several tuners may share one.

    Args:
        is_active: returns whether the app is in the foreground, and must be quick; None relies on
            `enter` and `leave` alone.
    """

    def __init__(self, is_active: Callable[[], bool] | None = None) -> None:
        self._is_active = is_active
        self._lock = threading.Lock()
        self._count = 0

    def enter(self) -> None:
        """Enter the foreground; `leave` must follow."""
        with self._lock:
            self._count += 1

    def leave(self) -> None:
        """Leave the foreground."""
        with self._lock:
            self._count = max(0, self._count - 1)

    def __enter__(self) -> Foreground:
        """Enter the foreground until the end of the block."""
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the foreground."""
        self.leave()

    def __call__(self) -> str | None:
        """Return the reason to wait, or None."""
        active = self._count or (self._is_active is not None and self._is_active())
        return "the app is in the foreground" if active else None
