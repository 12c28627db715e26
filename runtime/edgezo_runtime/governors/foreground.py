"""Wait while the app is being used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType


class Foreground:
    """Steps wait while the app is in the foreground.

    The app calls `enter` and `leave`, or gives a function that is asked:

        foreground = Foreground()
        tuner = Tuner.open(..., governors=[foreground])
        with foreground:  # any thread, and as often as needed
            answer(user)

    Several tuners may share one object.

    Args:
        is_active: returns whether the app is in the foreground, and must be quick. With None, only
            `enter` and `leave` count.
    """

    def __init__(self, is_active: Callable[[], bool] | None = None) -> None:
        self._is_active = is_active
        self._lock = threading.Lock()
        self._count = 0

    def enter(self) -> None:
        """Note that the app is in the foreground, until `leave` is called as often."""
        with self._lock:
            self._count += 1

    def leave(self) -> None:
        """Undo one call of `enter`."""
        with self._lock:
            self._count = max(0, self._count - 1)

    def __enter__(self) -> Foreground:
        """Note that the app is in the foreground, until the block ends."""
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Undo `__enter__`."""
        self.leave()

    def __call__(self) -> str | None:
        """Return the reason to wait, or None."""
        active = self._count or (self._is_active is not None and self._is_active())
        return "the app is in the foreground" if active else None
