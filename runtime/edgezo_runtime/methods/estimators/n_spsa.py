"""The mean of several antithetic estimates on the same batch."""

from __future__ import annotations

from collections.abc import Callable

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


def n_spsa(eps: float, num_directions: int = 4) -> Estimator:
    """Antithetic pairs along q directions, averaged.

    g = 1/q sum_i (L(theta + eps z_i) - L(theta - eps z_i)) / (2 eps) * z_i

    Args:
        eps: perturbation scale in weight units, > 0.
        num_directions: q, at least 1.

    Returns:
        Estimator with 2 q loss evaluations per step, one pair per pass.

    Raises:
        UsageError: eps is not a finite number above zero, or q < 1.

    Memory:
        O(q) scalars.

    References:
        Malladi et al. 2023, arXiv:2305.17333, Algorithm 2.
    """
    require_directions(num_directions)
    return pairs(eps, lambda info: num_directions)


def pairs(eps: float, count: Callable[[StepInfo], int]) -> Estimator:
    """Average antithetic pairs along a number of directions that depends on the step.

    Args:
        eps: perturbation scale in weight units, > 0.
        count: number of pairs of a step.

    Returns:
        Estimator with 2 count(info) loss evaluations per step, one pair per pass.

    Raises:
        UsageError: eps is not a finite number above zero.
    """
    require_eps(eps)

    def steps(info: StepInfo) -> Steps:
        total = count(info)
        terms: list[Term] = []
        for index in range(total):
            seed = derive_seed(info.seed, "direction", index)
            losses = yield [Probe(seed, eps), Probe(seed, -eps)]  # (2, 1)
            terms.append(Term(seed, (float(losses[0, 0] - losses[1, 0]) / (2 * eps * total),)))
        return terms

    return steps


def require_directions(count: int) -> None:
    """Refuse fewer than one direction.

    Raises:
        UsageError: the count is below 1.
    """
    if count < 1:
        raise UsageError(f"`num_directions` {count}: must be 1 or more")
