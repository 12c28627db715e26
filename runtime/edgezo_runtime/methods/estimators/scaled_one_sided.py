"""Several one-sided differences divided by their standard deviation."""

from __future__ import annotations

from edgezo_runtime.methods.estimators.n_spsa import require_directions
from edgezo_runtime.methods.estimators.probe import (
    Estimator,
    Probe,
    StepInfo,
    Steps,
    Term,
    require_eps,
)
from edgezo_runtime.noise import derive_seed

_SMALLEST = 1e-12


def scaled_one_sided(eps: float, num_directions: int = 8) -> Estimator:
    """FZOO's estimate: N one-sided differences divided by the standard deviation of the losses.

    g = 1/(N s) sum_i (L(theta + eps z_i) - L(theta)) z_i,   s = std_i L(theta + eps z_i)

    The mean is the gradient times eps / s, so the length of a step does not depend on the slope.
    If all losses are equal, g is zero.

    Args:
        eps: perturbation scale in weight units, > 0.
        num_directions: N, at least 2.

    Returns:
        Estimator with N + 1 loss evaluations per step, in one pass.

    Raises:
        UsageError: a setting is out of range.

    Memory:
        O(N) scalars; the engine holds N + 1 copies of a chunk's activations.

    References:
        Dang et al. 2025, arXiv:2506.09034 (FZOO), Algorithm 1, with z of signs.
    """
    require_eps(eps)
    require_directions(num_directions - 1)

    def steps(info: StepInfo) -> Steps:
        seeds = [derive_seed(info.seed, "direction", index) for index in range(num_directions)]
        losses = yield [Probe(info.seed, 0.0), *(Probe(own, eps) for own in seeds)]  # (N + 1, 1)
        spread = float(losses[1:, 0].std(ddof=1))
        unit = 0.0 if spread < _SMALLEST else 1 / (num_directions * spread)
        gain = unit * num_directions * eps or 1.0
        return [
            Term(own, (float(loss - losses[0, 0]) * unit,), gain=gain)
            for own, loss in zip(seeds, losses[1:, 0], strict=True)
        ]

    return steps
