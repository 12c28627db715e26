"""SIGINT and SIGTERM: the first asks to stop, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from edgezo_runtime.errors import InterruptedRunError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While entered, takes the signals over.

    Attributes:
        requested: did the first one come?
    """

    def __init__(self) -> None:
        self.requested = False
        self._on_request: Callable[[], None] | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def on_request(self, action: Callable[[], None]) -> None:
        """Call `action` when the first signal comes, or now if it came; it must be quick."""
        self._on_request = action
        if self.requested:
            action()

    def check(self) -> None:
        """End what has nothing to save.

        Raises:
            InterruptedRunError: the first signal came.
        """
        if self.requested:
            raise InterruptedRunError("interrupted")

    def __enter__(self) -> StopSignals:
        """Install the handlers; elsewhere than in the main thread there is nothing to install."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the old handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self._on_request is not None:
            self._on_request()
