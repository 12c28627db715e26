"""Exact gradients of the last blocks' trainable tensors, by going back through their graphs.

A batch goes forward and back in parts. Where the adapters act on last tokens only, these alone go
forward and back: the keys and values of the tokens before them are no function of what trains. The
parts are the same however many threads there are and however short memory is, and their gradients
are added in the order of the parts, so the bits of the sum are always the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.backward import BackwardGraphs
from edgezo_runtime.engine.chunks import Chunk
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.first_order_pass import (
    PART_TOKENS,
    ExampleCutter,
    OrderedSums,
    WayBack,
    longest_first,
)
from edgezo_runtime.engine.forward import Forward, Work
from edgezo_runtime.engine.params import SharedParams
from edgezo_runtime.engine.prefix_cache import NO_CACHE, Cache
from edgezo_runtime.errors import UsageError

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FirstOrderResult:
    """Losses and gradients of one batch.

    Attributes:
        losses: (E,) float64, nats.
        gradients: of the mean loss by every wanted tensor, in the tensor's shape.
    """

    losses: npt.NDArray[np.float64]
    gradients: dict[str, Float32]


class FirstOrderGradient:
    """Gradients of the blocks from `first_block` on.

    Args:
        engine: runs the bundle.
        first_block: the first block whose tensors train.
        part_tokens: tokens that go back through a block together; results depend on it in their
            last bits.
        tensors: those whose gradients are wanted; empty for all that train from that block on.
    Raises:
        UsageError: the bundle has no backward graphs, or there is no such block.
    """

    def __init__(
        self,
        engine: Engine,
        first_block: int,
        part_tokens: int = PART_TOKENS,
        tensors: Sequence[str] = (),
    ) -> None:
        if not 0 <= first_block < engine.num_blocks:
            raise UsageError(f"no block {first_block}: the model has {engine.num_blocks}")
        self.first_block = first_block
        self._engine = engine
        self._cutter = ExampleCutter.of(engine.bundle.manifest, part_tokens)
        self._graphs = BackwardGraphs(engine.model)
        infos = engine.bundle.manifest.trainables
        able = tuple(i.name for i in infos if i.block >= first_block and i.trains)
        self.names = tuple(tensors) or able

    def gradient(
        self,
        batch: Batch,
        params: Mapping[str, Float32],
        scope: Scope = "all",
        cache: Cache | None = None,
        cache_block: int = 0,
    ) -> FirstOrderResult:
        """Losses of a batch, and the gradient of their mean.

        Args:
            batch: E examples.
            params: every trainable tensor by name.
            scope: tokens the adapters act on.
            cache: states cached between passes, as for `Engine.score`.
            cache_block: where its states enter, at most `first_block`.
        Raises:
            BudgetStopError: memory is short, and nothing is left to save any.

        Memory:
            For each worker, of one part: the hidden states at the entry of every block from
            `first_block` on, and the activations and float32 weights inside one block. Where
            blocks are streamed: these states of all parts of a wave.
        """
        cache = NO_CACHE if cache is None else cache
        sums = OrderedSums()
        way = WayBack(self._graphs, self.first_block, self.names, sums)

        def make(work: Work) -> Forward:
            return cache.first_order_pass(work, cache_block, scope, way)

        def cut(taken: Batch) -> list[Chunk]:
            return sums.begin(longest_first(cache.cut_examples(self._cutter, taken)))

        chunks = self._engine.run(batch, SharedParams(params), make, cut, planned="gradient")
        chunks.sort(key=lambda chunk: int(chunk.index[0]))  # as the examples are in the batch
        losses = np.concatenate([chunk.scores for chunk in chunks])
        mean = {
            name: (sums.total[name] / len(losses)).astype(np.float32)
            if name in sums.total  # not all are where blocks are sampled
            else np.zeros_like(params[name])
            for name in self.names
        }
        return FirstOrderResult(losses, mean)
