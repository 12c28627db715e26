"""Per-example differences divided by their standard deviation over the batch."""

from __future__ import annotations

from edgezo_runtime.methods.estimators.probe import (
    Estimator,
    Probe,
    StepInfo,
    Steps,
    Term,
    require_eps,
)

_SMALLEST = 1e-8


def scaled_per_example(eps: float) -> Estimator:
    """GRZO's estimate: one direction per example, differences divided by their deviation.

    g = 1/(2 eps B) sum_b a_b z_b,   a_b = d_b / (std(d) + 1e-8),   d_b = l_b(+eps) - l_b(-eps)

    The mean is the gradient divided by std(d): the bias is one of scale, not of direction.

    Args:
        eps: perturbation scale in weight units, > 0.

    Returns:
        Estimator with 2 loss evaluations per step.

    Raises:
        UsageError: eps is not a finite number above zero.

    Memory:
        O(B) scalars; the engine holds 2 B copies of the perturbed trainables.

    References:
        GRZO, arXiv:2606.02857. The group is the batch; the published code uses groups of ten.
    """
    require_eps(eps)

    def steps(info: StepInfo) -> Steps:
        seed = info.seed
        losses = yield [Probe(seed, eps, private=True), Probe(seed, -eps, private=True)]  # (2, B)
        differences = losses[0] - losses[1]
        gain = 1 / (float(differences.std()) + _SMALLEST)
        coeff = differences / (2 * eps * info.batch_size) * gain
        return [Term(seed, tuple(float(c) for c in coeff), private=True, gain=gain)]

    return steps
