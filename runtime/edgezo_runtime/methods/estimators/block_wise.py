"""One antithetic estimate per block, all on the same batch."""

from __future__ import annotations

from edgezo_runtime.methods.estimators.probe import (
    Estimator,
    Probe,
    StepInfo,
    Steps,
    Term,
    require_eps,
)
from edgezo_runtime.noise import derive_seed


def block_wise(eps: float) -> Estimator:
    """Estimate with one antithetic pair per block, the other blocks unperturbed.

    g_k = (L(theta + eps z_k) - L(theta - eps z_k)) / (2 eps) * z_k for the tensors of block k

    A block's estimate does not contain the noise of other blocks: its variance grows with the
    parameters of the block, not with all parameters. All pairs are evaluated in one pass. Up to
    block k, the pair of block k equals the centre, so the blocks before it are computed once.

    Args:
        eps: perturbation scale in weight units, > 0.

    Returns:
        Estimator with one pair per active block and one evaluation of the centre.

    Raises:
        UsageError: eps is not a finite number above zero.

    Memory:
        O(blocks) scalars; the engine holds 2 copies of a chunk's activations per block.

    References:
        Zhang et al. 2024, arXiv:2402.11592 (block-wise ZO). Differs: each block has its
        own direction; the paper restarts one stream of random numbers for each block.
    """
    require_eps(eps)

    def steps(info: StepInfo) -> Steps:
        seeds = [derive_seed(info.seed, "block", block) for block in info.blocks]
        probes = [Probe(info.seed, 0.0, blocks=())]
        for block, seed in zip(info.blocks, seeds, strict=True):
            probes += [Probe(seed, eps, blocks=(block,)), Probe(seed, -eps, blocks=(block,))]
        losses = yield probes  # (1 + 2 blocks, 1)
        slopes = (losses[1::2, 0] - losses[2::2, 0]) / (2 * eps)
        return [
            Term(seed, (float(slope),), blocks=(block,))
            for block, seed, slope in zip(info.blocks, seeds, slopes, strict=True)
        ]

    return steps
