"""One place turns refused memory into words."""

import pytest

from edgezo_runtime.errors import BudgetStopError
from edgezo_runtime.system.memory_errors import NUMPY_REFUSED, budget_stop, refusal_reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), NUMPY_REFUSED),
        (MemoryError("Unable to allocate 2 GiB"), "Unable to allocate 2 GiB"),
    ],
)
def test_a_reason_is_the_text_of_the_error(error: MemoryError, reason: str) -> None:
    assert refusal_reason(error) == reason


@pytest.mark.parametrize("reason", ["the arena is full", MemoryError("the arena is full")])
def test_the_error_that_ends_a_run(reason: MemoryError | str) -> None:
    error = budget_stop(reason, " for the record of a step")
    assert isinstance(error, BudgetStopError)
    assert str(error) == "memory is short: the arena is full for the record of a step"


def test_nothing_need_follow_the_reason() -> None:
    assert str(budget_stop(MemoryError())) == f"memory is short: {NUMPY_REFUSED}"
