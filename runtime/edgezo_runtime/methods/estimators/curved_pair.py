"""Slope and curvature along one direction, from an antithetic pair and its centre."""

from __future__ import annotations

from edgezo_runtime.methods.estimators.probe import (
    Estimator,
    Probe,
    StepInfo,
    Steps,
    Term,
    require_eps,
)


def curved_pair(eps: float) -> Estimator:
    """Antithetic estimate that also measures the second derivative along z.

    g = (L+ - L-) / (2 eps) * z,   curvature = (L+ + L- - 2 L0) / eps^2

    Args:
        eps: perturbation scale in weight units, > 0.

    Returns:
        Estimator with 3 loss evaluations per step.

    Raises:
        UsageError: eps is not a finite number above zero.

    Memory:
        O(1).

    References:
        Zhao et al. 2024, arXiv:2402.15173 (HiZOO), equations 5 and 6.
    """
    require_eps(eps)

    def steps(info: StepInfo) -> Steps:
        seed = info.seed
        losses = yield [Probe(seed, 0.0), Probe(seed, eps), Probe(seed, -eps)]  # (3, 1)
        centre, plus, minus = (float(loss) for loss in losses[:, 0])
        slope = (plus - minus) / (2 * eps)
        return [Term(seed, (slope,), curvature=(plus + minus - 2 * centre) / eps**2)]

    return steps
