"""Estimates corrected by the gradient of many examples at an anchor point."""

from __future__ import annotations

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


def variance_reduced(eps: float, anchor_every: int = 2, anchor_batches: int = 8) -> Estimator:
    """MeZO-SVRG's estimates; the rule `Svrg` adds the anchor's gradient.

    Every `anchor_every` steps, along one direction over several batches:
        g = mean_j (L_j(theta + eps z) - L_j(theta - eps z)) / (2 eps) * z
    In other steps, on the batch of the step and with the same z at theta and at the anchor t:
        g = ((L(theta + eps z) - L(theta - eps z)) - (L(t + eps z) - L(t - eps z))) / (2 eps) * z

    Args:
        eps: perturbation scale in weight units, > 0.
        anchor_every: steps from one anchor to the next, at least 1.
        anchor_batches: further batches that represent all data at an anchor, at least 1.

    Returns:
        Estimator with 2 `anchor_batches` loss evaluations at an anchor, 4 in other steps.

    Raises:
        UsageError: a setting is out of range.

    Memory:
        O(1).

    References:
        Gautam et al. 2024, arXiv:2404.08080, Algorithm 1. Written from the paper: the published
        code stores references instead of copies and draws two directions for one difference.
    """
    require_eps(eps)
    for name, value in (("anchor_every", anchor_every), ("anchor_batches", anchor_batches)):
        if value < 1:
            raise UsageError(f"`{name}` {value}: must be 1 or more")

    def steps(info: StepInfo) -> Steps:
        seed = derive_seed(info.seed, "anchor" if info.step % anchor_every == 0 else "step")
        pair = [(seed, eps), (seed, -eps)]
        if info.step % anchor_every == 0:
            total = 0.0
            for batch in range(1, anchor_batches + 1):
                losses = yield [Probe(own, scale, batch=batch) for own, scale in pair]  # (2, 1)
                total += float(losses[0, 0] - losses[1, 0])
            return [Term(seed, (total / (2 * eps * anchor_batches),))]
        here = yield [Probe(own, scale) for own, scale in pair]
        there = yield [Probe(own, scale, anchored=True) for own, scale in pair]
        difference = float(here[0, 0] - here[1, 0]) - float(there[0, 0] - there[1, 0])
        return [Term(seed, (difference / (2 * eps),))]

    return steps
