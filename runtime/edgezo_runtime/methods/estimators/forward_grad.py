"""The directional derivative with a known error bound."""

from __future__ import annotations

from edgezo_runtime.methods.estimators.probe import (
    Estimator,
    Probe,
    StepInfo,
    Steps,
    Term,
    require_eps,
)


def forward_grad(eps: float) -> Estimator:
    """Forward gradient: the directional derivative along a random z, multiplied by z.

    g = D z,   D = (8 (L(eps) - L(-eps)) - (L(2 eps) - L(-2 eps))) / (12 eps)

    with L(s) = L(theta + s z).

    The graphs need no forward-mode derivative: D equals L'(0) to fourth order. Taylor's
    formula gives D - L'(0) = -eps^4 / 30 L^(5)(s) for some |s| <= 2 eps, since the terms in eps^2
    cancel: 8 (2 eps^3 / 6) = 2 (2 eps)^3 / 6. If every loss is wrong by at most delta, D is wrong
    by at most (8 + 8 + 1 + 1) delta / (12 eps) = 1.5 delta / eps more. The coded integer layers
    compute differences between probes at full relative precision, so delta is small.

    Args:
        eps: distance of the inner probes in weight units, > 0.

    Returns:
        Estimator with 4 loss evaluations per step, in one pass.

    Raises:
        UsageError: eps is not a finite number above zero.

    Memory:
        O(1); the engine holds 4 copies of the perturbed trainables.

    References:
        Baydin et al. 2022, arXiv:2202.08587 (gradients without backpropagation).
    """
    require_eps(eps)

    def steps(info: StepInfo) -> Steps:
        scales = (eps, -eps, 2 * eps, -2 * eps)
        losses = yield [Probe(info.seed, scale) for scale in scales]  # (4, 1)
        inner, outer = losses[0, 0] - losses[1, 0], losses[2, 0] - losses[3, 0]
        return [Term(info.seed, (float(8 * inner - outer) / (12 * eps),))]

    return steps
