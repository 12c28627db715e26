"""Estimators say where to evaluate the loss and which gradient follows from the answers.

To add one: a file here, an entry in `ESTIMATORS`, a row in `tests/contract/`.
"""

from __future__ import annotations

from collections.abc import Callable

from edgezo_runtime.estimators.leave_one_out import leave_one_out
from edgezo_runtime.estimators.per_example import per_example
from edgezo_runtime.estimators.probe import (
    Estimator,
    Losses,
    Probe,
    Steps,
    Term,
    gradient,
    record_losses,
)
from edgezo_runtime.estimators.two_point import two_point

ESTIMATORS: dict[str, Callable[[float], Estimator]] = {
    "two_point": two_point,
    "per_example": per_example,
    "leave_one_out": leave_one_out,
}

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "Losses",
    "Probe",
    "Steps",
    "Term",
    "gradient",
    "leave_one_out",
    "per_example",
    "record_losses",
    "two_point",
]
