"""The errors that edgezo raises on purpose, with their exit codes on the command line.

    EdgezoError              1    any failure without a class of its own
    ├── UsageError           2    a wrong option, argument or setting (also a ValueError)
    │   └── RewardError      2    a reward fails, or gives no number; the state is saved
    ├── DoesNotFitError      3    the model cannot run within the budget; refused before it starts
    ├── BudgetStopError      4    the memory or time granted is used up; the state is saved
    ├── DataError            5    a data file, template or label is wrong (also a ValueError)
    ├── BundleError          1    a bundle is missing, truncated, of another version or altered
    ├── RunFileError         1    a journal or a snapshot is missing, damaged or of another run
    ├── MissingExtraError    1    an optional dependency is not installed
    ├── DivergedError        1    a loss is not finite
    │   └── CacheRangeError  1    a number does not fit the cache of a run
    └── InterruptedRunError  130  stopped by a signal; the state is saved

A message says what is wrong, with the two values and the place, then what to do. It begins in lower
case, has no full stop at the end, and names settings by their fields, in backquotes.
"""

from __future__ import annotations

from typing import ClassVar


def printable(value: object, most: int = 80) -> str:
    """A text from elsewhere, shortened and without control characters.

    Args:
        value: any object; its `str` is shown.
        most: number of characters that are shown.
    """
    text = str(value)
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:most])
    return f"{shown}..." if len(text) > most else shown


class EdgezoError(Exception):
    """Base of every error edgezo raises on purpose.

    Attributes:
        exit_code: exit code of a command that this error ends.
    """

    exit_code: ClassVar[int] = 1


class UsageError(EdgezoError, ValueError):
    """A wrong option, argument or setting."""

    exit_code: ClassVar[int] = 2


class RewardError(UsageError):
    """A function that scores texts fails, or gives no number."""


class DoesNotFitError(EdgezoError):
    """The model cannot run within the budget; nothing has been started."""

    exit_code: ClassVar[int] = 3


class BudgetStopError(EdgezoError):
    """The memory or time granted is used up; the state is saved and the run can be resumed."""

    exit_code: ClassVar[int] = 4


class DataError(EdgezoError, ValueError):
    """A data file, a template or a label is wrong."""

    exit_code: ClassVar[int] = 5


class BundleError(EdgezoError):
    """A bundle is missing, truncated, of another version, or its digests do not match."""


class RunFileError(EdgezoError):
    """A journal or a snapshot is missing, damaged, of another version or of another run."""


class MissingExtraError(EdgezoError):
    """An optional dependency is not installed; the message has the pip command."""


class DivergedError(EdgezoError):
    """A loss is not finite; the message names the probe."""


class CacheRangeError(DivergedError):
    """A hidden state, key or value is beyond the range of the cache, at any learning rate."""


class InterruptedRunError(EdgezoError):
    """The run was stopped by a signal; the state is saved."""

    exit_code: ClassVar[int] = 130
