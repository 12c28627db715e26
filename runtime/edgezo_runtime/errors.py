"""Every error edgezo raises on purpose, with the exit code the command line returns for it.

    EdgezoError              1    any failure that has no class of its own
    ├── UsageError           2    a wrong option, argument or setting (also a ValueError)
    │   ├── RewardError      2    a reward fails, or returns no number; the state is saved
    │   └── NoBackwardGraphsError 2  exact gradients are asked for, and the bundle has no graphs
    ├── DoesNotFitError      3    the model cannot run within the budget; refused before it starts
    ├── BudgetStopError      4    the memory or time granted is used up; the state is saved
    │   └── DeviceLostError  4    a GPU is gone, with all that was on it; the state is saved
    ├── DataError            5    a data file, template or label is wrong (also a ValueError)
    │   └── MissingFieldError 5  a row lacks a field of its template
    ├── BundleError          1    a bundle is missing, truncated, of another version or altered
    │   └── UnplacedNodeError 1   a device cannot run a node of a graph
    ├── RunFileError         1    a journal or a snapshot is missing, damaged or of another run
    │   └── OtherInputsError 1    the run in the folder was started with other inputs
    ├── MissingExtraError    1    an optional dependency is not installed
    ├── DivergedError        1    a loss is not finite
    │   └── CacheRangeError  1    a number is beyond the range of the prefix cache
    └── InterruptedRunError  130  stopped by a signal; the state is saved

A message says what is wrong, gives the two values and the place, and then says what to do. It is in
lower case without a full stop at the end.
"""

from __future__ import annotations

from typing import ClassVar


def printable(value: object, most: int = 80) -> str:
    """Make text from outside short, and harmless to a terminal.

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
        exit_code: what the command line exits with when this error ends it.
    """

    exit_code: ClassVar[int] = 1


class UsageError(EdgezoError, ValueError):
    """A wrong option, argument or setting."""

    exit_code: ClassVar[int] = 2


class RewardError(UsageError):
    """A function that scores texts fails, or returns no number."""


class NoBackwardGraphsError(UsageError):
    """A bundle has no backward graphs in the form of the device."""


class DoesNotFitError(EdgezoError):
    """The model cannot run within the budget; nothing has been started."""

    exit_code: ClassVar[int] = 3


class BudgetStopError(EdgezoError):
    """The memory or time granted is used up; the state is saved and the run can be resumed."""

    exit_code: ClassVar[int] = 4


class DeviceLostError(BudgetStopError):
    """A GPU is gone, and all that was on it; the state is saved and the run can be resumed."""


class DataError(EdgezoError, ValueError):
    """A data file, a template or a label is wrong."""

    exit_code: ClassVar[int] = 5


class MissingFieldError(DataError):
    """A row lacks a field that its template or its label words need."""


class BundleError(EdgezoError):
    """A bundle is missing, truncated, of another version, or its digests do not match."""


class UnplacedNodeError(BundleError):
    """A device cannot run a node of a graph; the processor can."""


class RunFileError(EdgezoError):
    """A journal or a snapshot is missing, damaged, of another version or of another run."""


class OtherInputsError(RunFileError):
    """The run in the folder was started with other inputs; it resumes with those only."""


class MissingExtraError(EdgezoError):
    """An optional dependency is not installed; the message carries the pip command."""


class DivergedError(EdgezoError):
    """A loss is not finite; the message names the probe."""


class CacheRangeError(DivergedError):
    """A hidden state, key or value is beyond the range of the prefix cache.

    A lower learning rate does not help.
    """


class InterruptedRunError(EdgezoError):
    """The run was stopped by a signal; the state is saved."""

    exit_code: ClassVar[int] = 130
