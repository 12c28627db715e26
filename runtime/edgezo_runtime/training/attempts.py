"""Retry work in smaller chunks when memory is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType

from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.system.memory_errors import refusal_reason


class Attempt:
    """One attempt at some work: a context manager that catches a refusal of memory.

    Args:
        engine: runs the passes of the work.
        check: called at every block; raises to end the work.

    Attributes:
        refused: how memory was refused; None if it was not.
    """

    def __init__(self, engine: Engine, check: Callable[[], None]) -> None:
        self._interruptible = engine.interruptible(check)
        self.refused: str | None = None

    def __enter__(self) -> None:
        """Let `check` end the passes of this thread."""
        self._interruptible.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Take a refusal of memory, and no other error."""
        self._interruptible.__exit__(None, None, None)
        if isinstance(error, MemoryError):
            self.refused = refusal_reason(error)
            return True
        return False


def attempts(engine: Engine, check: Callable[[], None]) -> Iterator[Attempt]:
    """Attempts at some work, each with less memory than the one before.

        for attempt in attempts(engine, check):
            with attempt:
                return work()

    Args:
        engine: runs the passes of the work.
        check: called at every block; raises to end the work.
    Yields:
        Contexts for the work, until an attempt is not refused memory.
    Raises:
        BudgetStopError: memory was refused, and the engine cannot do with less.
    """
    while True:
        attempt = Attempt(engine, check)
        yield attempt
        if attempt.refused is None:
            return
        engine.shrink(attempt.refused)  # here the error is gone, and with it what the pass held
