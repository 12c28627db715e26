"""The one place that turns refused memory into the words and the error that users get."""

from __future__ import annotations

from edgezo_runtime.errors import BudgetStopError

NUMPY_REFUSED = "numpy was refused memory"
"""The reason where an error gives none: numpy's `MemoryError` has a text only for large arrays."""


def refusal_reason(error: BaseException) -> str:
    """The text of a `MemoryError`; `NUMPY_REFUSED` where it has none."""
    return str(error) or NUMPY_REFUSED


def budget_stop(reason: BaseException | str, what: str = "") -> BudgetStopError:
    """Make the error that ends a run for lack of memory.

    Args:
        reason: what was refused: an error, or the text that `refusal_reason` gave.
        what: the rest of the message, with the space or the sign it begins with, such as
            " for the record of a step" or "; give the run more memory".
    """
    text = reason if isinstance(reason, str) else refusal_reason(reason)
    return BudgetStopError(f"memory is short: {text}{what}")
