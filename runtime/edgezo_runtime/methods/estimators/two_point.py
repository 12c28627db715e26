"""MeZO's estimator: an antithetic pair along one direction."""

from __future__ import annotations

from edgezo_runtime.methods.estimators.probe import (
    Estimator,
    Probe,
    StepInfo,
    Steps,
    Term,
    require_eps,
)


def two_point(eps: float) -> Estimator:
    """Antithetic two-point estimate along one random direction, shared by the batch.

    g = (L(theta + eps z) - L(theta - eps z)) / (2 eps) * z,   E z z' = I.

    Args:
        eps: perturbation scale in weight units, > 0.

    Returns:
        Estimator with 2 loss evaluations per step.

    Raises:
        UsageError: eps is not a finite number above zero.

    Memory:
        O(1); z is regenerated from its seed.

    References:
        Malladi et al. 2023, arXiv:2305.17333, Algorithm 1; Spall 1992 (SPSA). Differs: theta is
        never written during probes, and z may consist of random signs instead of normals.
    """
    require_eps(eps)

    def steps(info: StepInfo) -> Steps:
        losses = yield [Probe(info.seed, eps), Probe(info.seed, -eps)]  # (2, 1)
        projected_grad = float(losses[0, 0] - losses[1, 0]) / (2 * eps)
        return [Term(info.seed, (projected_grad,))]

    return steps
