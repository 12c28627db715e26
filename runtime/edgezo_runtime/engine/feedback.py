"""Learned feedback: label logits under perturbed states, and gradients without a way back.

Both evaluate last tokens alone, on the cached keys and values of their prompts. The gradient is
made in parts that are always the same, and added in their order, as exact gradients are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.engine.chunks import Chunk
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.feedback_pass import (
    LocalGradientPass,
    LocalSite,
    NodeNoise,
    NodeProbePass,
)
from edgezo_runtime.engine.first_order_pass import (
    PART_TOKENS,
    ExampleCutter,
    OrderedSums,
    longest_first,
)
from edgezo_runtime.engine.forward import Forward, Work
from edgezo_runtime.engine.pair_coding import code_matrices
from edgezo_runtime.engine.prefix_cache import AnswerCache

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LocalGradient:
    """Losses and gradients of one batch.

    Attributes:
        losses: (B,) float64, nats; or the chance of a wrong answer.
        gradients: of the mean loss by every factor, (r, in), with the feedback in place of the
            derivative.
    """

    losses: npt.NDArray[np.float64]
    gradients: dict[str, Float32]


class FeedbackPasses:
    """The passes of learned feedback.

    Args:
        engine: runs the bundle.
        entry: the block where cached states enter.
        mistakes: gradients are of the expected share of wrong answers, not of the cross entropy.
    """

    def __init__(self, engine: Engine, entry: int, *, mistakes: bool = False) -> None:
        self._mistakes = mistakes
        self._engine = engine
        self._entry = entry
        self._cutter = ExampleCutter.of(engine.bundle.manifest, PART_TOKENS)

    def probe(
        self, batch: Batch, params: Mapping[str, Float32], noise: NodeNoise, cache: AnswerCache
    ) -> tuple[Float32, dict[tuple[int, str], Float32]]:
        """Evaluate a batch with perturbed states.

        Args:
            batch: B sequences with label words.
            params: every trainable tensor by name.
            noise: the perturbations.
            cache: states of the prompts.
        Returns:
            Label logits (G, B, C); and by block and tap the tap's rows (B, in), in the first group.
        """
        taps: dict[tuple[int, str], Float32] = {}
        for block, names in noise.taps.items():
            for tap in names:
                taps[block, tap] = np.ones((batch.num_rows, self._width(block, tap)), np.float32)
        code = code_matrices(noise.scales)
        first = min(noise.names)

        def make(work: Work) -> Forward:
            return NodeProbePass(work, code, first, cache, self._entry, node_noise=noise, kept=taps)

        def cut(taken: Batch) -> list[Chunk]:
            return cache.cut(self._engine.cutter(), taken, len(noise.scales))

        chunks = self._engine.run(batch, SharedParams(params), make, cut)
        return np.concatenate([chunk.scores for chunk in chunks], axis=1), taps

    def _width(self, block: int, tap: str) -> int:
        outputs = self._engine.bundle.manifest.graphs.blocks[block].outputs
        return next(int(own.shape[-1]) for own in outputs if own.name == tap)

    def gradient(
        self,
        batch: Batch,
        params: Mapping[str, Float32],
        sites: Mapping[int, Sequence[LocalSite]],
        cache: AnswerCache,
    ) -> LocalGradient:
        """Losses of a batch, and the gradients at the sites.

        Args:
            batch: B sequences with label words, and their classes.
            params: every trainable tensor by name.
            sites: by block.
            cache: states of the prompts.

        Memory:
            Of each part, the inputs of all sites.
        """
        sums = OrderedSums()

        def make(work: Work) -> Forward:
            own = (work, None, 0, cache, self._entry)
            return LocalGradientPass(*own, sites=sites, sums=sums, mistakes=self._mistakes)

        def cut(taken: Batch) -> list[Chunk]:
            return sums.begin(longest_first(cache.cut_examples(self._cutter, taken)))

        chunks = self._engine.run(batch, SharedParams(params), make, cut)
        chunks.sort(key=lambda chunk: int(chunk.index[0]))
        losses = np.concatenate([chunk.scores for chunk in chunks])
        means = {
            name: (total / len(losses)).astype(np.float32) for name, total in sums.total.items()
        }
        return LocalGradient(losses, means)
