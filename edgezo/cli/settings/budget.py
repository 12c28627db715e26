"""Conversion of `--budget` to bytes, with a check of the memory that is free."""

from __future__ import annotations

from edgezo_runtime.errors import DoesNotFitError, UsageError
from edgezo_runtime.system.memory import available_bytes, limit_bytes, rss_bytes, total_bytes
from edgezo_runtime.system.sizes import format_size, parse_size


def resolve_budget(text: str) -> tuple[int, str | None]:
    """Convert a budget to bytes; add a warning if less memory than that is free now.

    Raises:
        UsageError: the text is not a size, or more than the machine or the control group has.
    """
    available, total = available_bytes(), total_bytes()
    if not available:
        raise DoesNotFitError("no memory is left to this process; end other programs")
    budget = parse_size(text, available=available)
    if budget > total:
        raise UsageError(
            f"--budget {text}: {format_size(budget)} is more than the {format_size(total)} this "
            f"{'control group' if limit_bytes() == total else 'machine'} has; give a smaller "
            f"size, a share such as 80%, or auto"
        )
    if budget > available + rss_bytes():
        return budget, (
            f"the budget of {format_size(budget)} is more than the {format_size(available)} that "
            f"are free now; when memory is short, the run streams its blocks, then takes smaller "
            f"chunks, then stops"
        )
    return budget, None
