"""Wait while the app is being used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType


class Foreground:
    """Steps wait while the app is in the foreground: as it says, or as a function tells.

        foreground = Foreground()
        tuner = Tuner.open(..., governors=[foreground])
        with foreground:  # any thread, and as often as needed
            answer(user)

    One may be given to several tuners.

    Args:
        is_active: tells whether the app is in the foreground; None for `enter` and `leave` alone.
            It must be quick.
    """

    def __init__(self, is_active: Callable[[], bool] | None = None) -> None:
        self._is_active = is_active
        self._lock = threading.Lock()
        self._count = 0

    def enter(self) -> None:
        """Come to the foreground; `leave` must follow."""
        with self._lock:
            self._count += 1

    def leave(self) -> None:
        """Leave the foreground."""
        with self._lock:
            self._count = max(0, self._count - 1)

    def __enter__(self) -> Foreground:
        """Come to the foreground; leaving the block leaves it."""
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
        """Why to wait; None to go on."""
        active = self._count or (self._is_active is not None and self._is_active())
        return "the app is in the foreground" if active else None
