"""Antithetic pairs along one direction per example of the batch."""

from __future__ import annotations

from edgezo_runtime.methods.estimators.probe import (
    Estimator,
    Probe,
    StepInfo,
    Steps,
    Term,
    require_eps,
)


def per_example(eps: float) -> Estimator:
    """Antithetic estimate in which each example b has its own direction z_b.

    g = 1/B sum_b (l_b(theta + eps z_b) - l_b(theta - eps z_b)) / (2 eps) * z_b

    A batch of B examples evaluates B directions at the cost of one pair. With d parameters and
    example gradients g_b the variance is about (d/B) mean |g_b|^2; one shared direction has
    d |mean_b g_b|^2. So private directions have less variance as long as the examples' gradients
    agree at all.

    Args:
        eps: perturbation scale in weight units, > 0.

    Returns:
        Estimator with 2 loss evaluations per step.

    Raises:
        UsageError: eps is not a finite number above zero.

    Memory:
        O(B) scalars; the engine holds 2 B copies of the perturbed trainables.

    References:
        Wen et al. 2018, arXiv:1803.04386 (independent perturbations within a batch).
    """
    require_eps(eps)

    def steps(info: StepInfo) -> Steps:
        losses = yield [
            Probe(info.seed, eps, private=True),
            Probe(info.seed, -eps, private=True),
        ]  # (2, B)
        coeff = (losses[0] - losses[1]) / (2 * eps * info.batch_size)
        return [Term(info.seed, tuple(float(c) for c in coeff), private=True)]

    return steps
