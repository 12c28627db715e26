"""The sign of the projected gradient."""

from __future__ import annotations

import numpy as np

from edgezo_runtime.methods.estimators.probe import (
    Estimator,
    Probe,
    StepInfo,
    Steps,
    Term,
    require_eps,
)


def scalar_sign(eps: float) -> Estimator:
    """Antithetic estimate that uses only the sign of the difference.

    g = sign(L(theta + eps z) - L(theta - eps z)) * z

    Args:
        eps: perturbation scale in weight units, > 0.

    Returns:
        Estimator with 2 loss evaluations per step. Biased: every step has the same length.

    Raises:
        UsageError: eps is not a finite number above zero.

    Memory:
        O(1).

    References:
        The code of Zhang et al. 2024, arXiv:2402.11592; the paper takes the sign of every element.
    """
    require_eps(eps)

    def steps(info: StepInfo) -> Steps:
        losses = yield [Probe(info.seed, eps), Probe(info.seed, -eps)]  # (2, 1)
        slope = float(losses[0, 0] - losses[1, 0]) / (2 * eps)
        gain = 1 / abs(slope) if slope else 1.0
        return [Term(info.seed, (float(np.sign(slope)),), gain=gain)]

    return steps
