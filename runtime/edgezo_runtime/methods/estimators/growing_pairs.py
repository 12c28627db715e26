"""More directions in later epochs: AdaZeta's schedule of queries."""

from __future__ import annotations

import math

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.estimators.n_spsa import pairs, require_directions
from edgezo_runtime.methods.estimators.probe import Estimator, StepInfo


def growing_pairs(
    eps: float,
    query_scale: float = 0.85,
    query_growth: float = 0.45,
    num_directions: int = 20,
) -> Estimator:
    """Antithetic pairs along Q_e directions in epoch e, averaged.

    Q_e = min(max(floor(a e^b), 1), Q_max),   e from 1

    Args:
        eps: perturbation scale in weight units, > 0.
        query_scale: a, > 0.
        query_growth: b, >= 0.
        num_directions: Q_max, at least 1.

    Returns:
        Estimator with 2 Q_e loss evaluations per step.

    Raises:
        UsageError: a setting is out of range.

    Memory:
        O(Q_max) scalars.

    References:
        Yang et al. 2024, arXiv:2406.18060 (AdaZeta), equation 7. Differs: the loss of a step is
        the mean over its queries, not the loss of the last query.
    """
    require_directions(num_directions)
    if not (math.isfinite(query_scale) and query_scale > 0):
        raise UsageError(f"`query_scale` {query_scale}: must be a number above zero")
    if not (math.isfinite(query_growth) and query_growth >= 0):
        raise UsageError(f"`query_growth` {query_growth}: must be a number, 0 or more")

    def count(info: StepInfo) -> int:
        grown = math.floor(query_scale * math.pow(info.epoch + 1, query_growth))
        return min(max(grown, 1), num_directions)

    return pairs(eps, count)
