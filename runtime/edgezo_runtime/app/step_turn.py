"""The turn to take steps: one thread has it at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import TracebackType

from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import UsageError


class StepTurn:
    """A context manager: no other thread takes a step inside.

    Args:
        engine: runs the passes of the steps.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._thread: int | None = None

    def __enter__(self) -> None:
        """Wait until no step is being taken."""
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let other threads take steps."""
        self._lock.release()

    @contextlib.contextmanager
    def stepping(self) -> Iterator[None]:
        """Mark that the thread that has the turn takes a step."""
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None

    def require_outside(self, method: str) -> None:
        """Refuse a call that would wait for its own thread.

        Args:
            method: name of the method that is called.
        Raises:
            UsageError: a step waits for the caller, or the process is a fork.
        """
        self._engine.require_here()
        if self._thread == threading.get_ident() or self._engine.inside:
            raise UsageError(
                f"'{method}' was called by a reward or a governor, which a step waits for; call it "
                f"from another thread, or call 'stop', or 'pause' without `wait`"
            )
