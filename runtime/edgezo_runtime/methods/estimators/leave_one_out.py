"""Several one-sided directions, each compared with the mean of the others."""

from __future__ import annotations

from typing import Literal

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.estimators.probe import (
    Estimator,
    Probe,
    StepInfo,
    Steps,
    Term,
    require_eps,
)
from edgezo_runtime.noise import derive_seed


def leave_one_out(
    eps: float, num_directions: int = 8, directions: Literal["private", "shared"] = "private"
) -> Estimator:
    """One-sided estimate with a leave-one-out baseline.

    g = 1/(B (N-1)) sum_b sum_i (l_b(theta + eps z_bi) - mean_j l_b(theta + eps z_bj)) / eps * z_bi

    Subtracting the mean over all N and dividing by N - 1 equals a baseline that leaves i out, so
    the bias is of order eps^2, as with antithetic pairs. N rows give N - 1 directions per example;
    antithetic pairs give N / 2. The curvature along z cancels only in the mean, not within a step,
    and adds variance of order eps^2. So eps must be small enough for the loss to be nearly linear
    along z.

    Args:
        eps: perturbation scale in weight units, > 0.
        num_directions: N, at least 2.
        directions: "private" to every example, or "shared" by the batch (B = 1 in the formula, of
            the mean loss).

    Returns:
        Estimator with N loss evaluations per step.

    Raises:
        UsageError: eps is not a finite number above zero, or N < 2.

    Memory:
        O(N B) scalars; the engine holds N B copies (N if shared) of the perturbed trainables.

    References:
        Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!" (the baseline);
        private directions as in `per_example`.
    """
    require_eps(eps)
    if num_directions < 2:
        raise UsageError(f"`num_directions` {num_directions}: a baseline needs 2 or more")
    if directions not in ("private", "shared"):
        raise UsageError(f"`directions` {directions}: expected private or shared")
    private = directions == "private"

    def steps(info: StepInfo) -> Steps:
        seeds = [derive_seed(info.seed, "direction", index) for index in range(num_directions)]
        losses = yield [Probe(own, eps, private=private) for own in seeds]  # (N, B or 1)
        centred = losses - losses.mean(axis=0)
        coeff = centred / (eps * (num_directions - 1) * losses.shape[1])
        return [
            Term(own, tuple(float(c) for c in row), private=private)
            for own, row in zip(seeds, coeff, strict=True)
        ]

    return steps
