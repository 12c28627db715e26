"""Work that is tried again with less memory, on an engine that only counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edgezo_runtime.errors import BudgetStopError, DivergedError
from edgezo_runtime.system.memory_errors import NUMPY_REFUSED
from edgezo_runtime.training.attempts import attempts


class Engine:
    """Notes what it is asked for.

    Args:
        most: how often it can shrink.

    Attributes:
        checks: functions that may end a pass now.
        reasons: why it was told to shrink.
    """

    def __init__(self, most: int = 10) -> None:
        self._most = most
        self.checks: list[Callable[[], None]] = []
        self.reasons: list[str] = []

    @contextmanager
    def interruptible(self, check: Callable[[], None]) -> Iterator[None]:
        self.checks.append(check)
        try:
            yield
        finally:
            self.checks.remove(check)

    def shrink(self, reason: str) -> None:
        assert self.checks == []  # the pass that was refused is over
        if len(self.reasons) == self._most:
            raise BudgetStopError(f"memory is short: {reason}")
        self.reasons.append(reason)


def nothing() -> None:
    """A check that ends nothing."""


def worked(engine: Any, work: Callable[[], int]) -> int:
    for attempt in attempts(engine, nothing):
        with attempt:
            return work()
    raise AssertionError("attempts end with a result or an error")


@pytest.mark.parametrize("refusals", [0, 1, 2, 5])
def test_work_shrinks_once_per_refusal_and_returns(refusals: int) -> None:
    engine, calls = Engine(), 0

    def work() -> int:
        nonlocal calls
        assert engine.checks == [nothing]
        calls += 1
        if calls <= refusals:
            raise MemoryError(f"refusal {calls}")
        return 7

    assert worked(engine, work) == 7
    assert calls == refusals + 1
    assert engine.reasons == [f"refusal {number + 1}" for number in range(refusals)]
    assert engine.checks == []


def test_a_refusal_without_a_text_is_numpys() -> None:
    engine = Engine()
    texts = iter([MemoryError(), None])

    def work() -> int:
        error = next(texts)
        if error is not None:
            raise error
        return 0

    worked(engine, work)
    assert engine.reasons == [NUMPY_REFUSED]


def test_the_end_of_what_can_shrink_is_the_end_of_the_work() -> None:
    engine, calls = Engine(most=2), 0

    def work() -> int:
        nonlocal calls
        calls += 1
        raise MemoryError("refused")

    with pytest.raises(BudgetStopError, match="memory is short: refused"):
        worked(engine, work)
    assert (calls, len(engine.reasons)) == (3, 2)


@pytest.mark.parametrize("error", [DivergedError, KeyboardInterrupt, BudgetStopError])
def test_other_errors_are_not_tried_again(error: type[BaseException]) -> None:
    engine = Engine()

    def work() -> int:
        raise error("other")

    with pytest.raises(error, match="other"):
        worked(engine, work)
    assert (engine.reasons, engine.checks) == ([], [])


def test_work_that_does_not_return_is_done_once() -> None:
    engine, calls = Engine(), 0
    for attempt in attempts(engine, nothing):  # type: ignore[arg-type]
        with attempt:
            calls += 1
    assert (calls, attempt.refused, engine.reasons) == (1, None, [])
