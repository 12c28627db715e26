"""The step, the opposite step or none, whichever gives the least loss on the batch."""

from __future__ import annotations

from edgezo_runtime.methods.estimators.probe import (
    Estimator,
    Probe,
    StepInfo,
    Steps,
    Term,
    require_eps,
)


def conservative(eps: float) -> Estimator:
    """Antithetic estimate that is kept, negated or dropped.

    With u = lr c z and c as in `two_point`, theta - u, theta + u and theta itself are evaluated on
    the same batch; g = c z, -c z or 0 leads to the point with the least loss. The method
    requires a rule that steps by lr g.

    Args:
        eps: perturbation scale in weight units, > 0.

    Returns:
        Estimator with 5 loss evaluations per step. Biased: losses decide the sign.

    Raises:
        UsageError: eps is not a finite number above zero.

    Memory:
        O(1).

    References:
        Zhang et al. 2024, arXiv:2402.11592 (ZO-SGD-Cons).
    """
    require_eps(eps)

    def steps(info: StepInfo) -> Steps:
        seed = info.seed
        losses = yield [Probe(seed, 0.0), Probe(seed, eps), Probe(seed, -eps)]  # (3, 1)
        centre = float(losses[0, 0])
        projected_grad = float(losses[1, 0] - losses[2, 0]) / (2 * eps)
        length = info.lr * projected_grad
        if length == 0:  # nothing to choose between
            return [Term(seed, (projected_grad,))]
        tried = yield [Probe(seed, -length), Probe(seed, length)]  # (2, 1)
        forward, backward = (float(loss) for loss in tried[:, 0])
        best = min(centre, forward, backward)
        sign = 0.0 if best == centre else 1.0 if best == forward else -1.0
        return [Term(seed, (sign * projected_grad,))]

    return steps
