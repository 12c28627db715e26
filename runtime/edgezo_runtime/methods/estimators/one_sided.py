"""Forward difference along one direction."""

from __future__ import annotations

from edgezo_runtime.methods.estimators.probe import (
    Estimator,
    Probe,
    StepInfo,
    Steps,
    Term,
    require_eps,
)


def one_sided(eps: float) -> Estimator:
    """Forward difference along one random direction, shared by the batch.

    g = (L(theta + eps z) - L(theta)) / eps * z

    The bias is eps E[(z' H z) z] / 2, which is zero for symmetric z. The curvature along z does not
    cancel as in an antithetic pair, so it adds variance.

    Args:
        eps: perturbation scale in weight units, > 0.

    Returns:
        Estimator with 2 loss evaluations per step.

    Raises:
        UsageError: eps is not a finite number above zero.

    Memory:
        O(1).

    References:
        Zhang et al. 2024, arXiv:2402.11592 (ZO-Bench, perturbation mode one_side). Differs: theta
        itself is evaluated, not reached by undoing a perturbation.
    """
    require_eps(eps)

    def steps(info: StepInfo) -> Steps:
        losses = yield [Probe(info.seed, 0.0), Probe(info.seed, eps)]  # (2, 1)
        return [Term(info.seed, (float(losses[1, 0] - losses[0, 0]) / eps,))]

    return steps
