"""Owns the gradient estimators: where to evaluate the loss, and the gradient that follows.

Must not know models, data or update rules: an estimator sees seeds, scales and losses only.

To add one: a file here, an entry in `ESTIMATORS`, and one in `METHODS` (`methods/catalogue.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from edgezo_runtime.methods.estimators.block_wise import block_wise
from edgezo_runtime.methods.estimators.conservative import conservative
from edgezo_runtime.methods.estimators.curved_pair import curved_pair
from edgezo_runtime.methods.estimators.forward_grad import forward_grad
from edgezo_runtime.methods.estimators.growing_pairs import growing_pairs
from edgezo_runtime.methods.estimators.leave_one_out import leave_one_out
from edgezo_runtime.methods.estimators.n_spsa import n_spsa
from edgezo_runtime.methods.estimators.one_sided import one_sided
from edgezo_runtime.methods.estimators.per_example import per_example
from edgezo_runtime.methods.estimators.probe import (
    Estimator,
    EstimatorRun,
    Losses,
    Probe,
    StepInfo,
    Steps,
    Term,
    record_losses,
    replay_estimator,
)
from edgezo_runtime.methods.estimators.scalar_sign import scalar_sign
from edgezo_runtime.methods.estimators.scaled_one_sided import scaled_one_sided
from edgezo_runtime.methods.estimators.scaled_per_example import scaled_per_example
from edgezo_runtime.methods.estimators.two_point import two_point
from edgezo_runtime.methods.estimators.variance_reduced import variance_reduced

ESTIMATORS: dict[str, Callable[..., Estimator]] = {
    "two_point": two_point,
    "scalar_sign": scalar_sign,
    "one_sided": one_sided,
    "n_spsa": n_spsa,
    "growing_pairs": growing_pairs,
    "conservative": conservative,
    "forward_grad": forward_grad,
    "block_wise": block_wise,
    "variance_reduced": variance_reduced,
    "curved_pair": curved_pair,
    "scaled_one_sided": scaled_one_sided,
    "per_example": per_example,
    "scaled_per_example": scaled_per_example,
    "leave_one_out": leave_one_out,
}

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "EstimatorRun",
    "Losses",
    "Probe",
    "StepInfo",
    "Steps",
    "Term",
    "block_wise",
    "conservative",
    "curved_pair",
    "forward_grad",
    "growing_pairs",
    "leave_one_out",
    "n_spsa",
    "one_sided",
    "per_example",
    "record_losses",
    "replay_estimator",
    "scalar_sign",
    "scaled_one_sided",
    "scaled_per_example",
    "two_point",
    "variance_reduced",
]
