"""Several one-sided directions an example, each measured against the mean of the others."""

from __future__ import annotations

from edgezo_runtime.errors import UsageError
from edgezo_runtime.estimators.probe import Estimator, Probe, Steps, Term, require_eps
from edgezo_runtime.noise import derive_seed


def leave_one_out(eps: float, num_directions: int = 8) -> Estimator:
    """Private one-sided estimate with a leave-one-out baseline.

    g = 1/(B (N-1)) sum_b sum_i (l_b(theta + eps z_bi) - mean_j l_b(theta + eps z_bj)) / eps * z_bi

    Subtracting the mean over all N and dividing by N - 1 equals a baseline that leaves i out, so
    the estimate has a bias of order eps^2, as that of pairs. N rows give N - 1 directions an
    example where antithetic pairs give N / 2. Not antithetic: the curvature along z does not cancel
    within a step, only in the mean, and adds variance of order eps^2; so eps must be small enough
    for the loss to be nearly linear along z.

    Args:
        eps: perturbation scale in weight units, > 0.
        num_directions: N, at least 2.

    Returns:
        Estimator with N loss evaluations a step.

    Raises:
        UsageError: eps is not a finite number above zero, or N < 2.

    Memory:
        O(N B) scalars; the engine holds N B copies of the perturbed trainables.

    References:
        Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!" (the baseline);
        private directions as in `per_example`.
    """
    require_eps(eps)
    if num_directions < 2:
        raise UsageError(f"num_directions {num_directions}: a baseline needs 2 or more")

    def steps(seed: int, batch_size: int) -> Steps:
        seeds = [derive_seed(seed, "direction", index) for index in range(num_directions)]
        losses = yield [Probe(own, eps, private=True) for own in seeds]  # (N, B)
        centred = losses - losses.mean(axis=0)
        coeff = centred / (eps * (num_directions - 1) * batch_size)
        return [
            Term(own, tuple(float(c) for c in row), private=True)
            for own, row in zip(seeds, coeff, strict=True)
        ]

    return steps
