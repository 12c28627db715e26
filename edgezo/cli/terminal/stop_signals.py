"""SIGINT and SIGTERM: the first requests a stop, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from edgezo_runtime.errors import InterruptedRunError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """A context that handles the two signals.

    Attributes:
        requested: has the first signal arrived?
    """

    def __init__(self) -> None:
        self.requested = False
        self._on_request: Callable[[], None] | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def on_request(self, action: Callable[[], None]) -> None:
        """Call `action` at the first signal, or now if it has arrived; `action` must be quick."""
        self._on_request = action
        if self.requested:
            action()

    def check(self) -> None:
        """Raise after the first signal, in work that has nothing to save.

        Raises:
            InterruptedRunError: the first signal has arrived.
        """
        if self.requested:
            raise InterruptedRunError("interrupted")

    def __enter__(self) -> StopSignals:
        """Install the handlers, which only the main thread can."""
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
        """Restore the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self._on_request is not None:
            self._on_request()
