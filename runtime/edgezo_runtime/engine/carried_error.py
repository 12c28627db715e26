"""Gradients without a way back through blocks: the exact error at the end, carried by the residual.

With g the gradient at the last hidden states h, which the scorer alone gives,

    dL/dh_l = (I + D_{l+1})' ... (I + D_L)' g,    D_k the derivative of what block k adds

The D_k differ from token to token. Here the last blocks' are replaced by their means over tokens,
learned from pairs of passes, and those of the blocks before by zero: the residual stream itself
carries the error. The gradients of an adapter y + s B A x beside the last layer of block l are then

    dL/dB = s e_l (A x)'    dL/dA = s (B' e_l) x'

References:
    Nokland 2016, Direct feedback alignment, arXiv:1609.01596: an error of the end for every layer.
    Akrout et al. 2019, Deep learning without weight transport, arXiv:1904.05391: learned feedback.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.backward import BackwardGraphs
from edgezo_runtime.engine.carried_error_pass import (
    IN_IN,
    IN_OUT,
    BlockProbePass,
    CarriedErrorPass,
    CarriedSite,
    EntryNoise,
)
from edgezo_runtime.engine.chunks import Chunk
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.first_order import FirstOrderResult
from edgezo_runtime.engine.first_order_pass import (
    PART_TOKENS,
    ExampleCutter,
    OrderedSums,
    WayBack,
    longest_first,
)
from edgezo_runtime.engine.forward import Forward, Work
from edgezo_runtime.engine.pair_coding import code_matrices
from edgezo_runtime.engine.prefix_cache import NO_CACHE, Cache, WholeSequences
from edgezo_runtime.errors import DivergedError, UsageError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

LEARNED = 2
"""Last blocks whose mean derivative is learned; docs/feedback-texts.md has what more would gain."""

NOISE = 0.02
"""Size of a perturbation as a share of that of a hidden state."""

RIDGE = 0.03
"""Share of the mean square of the entries that is added to it."""


class CarriedError:
    """Gradients of the adapters beside the last layers of blocks.

    Args:
        engine: runs the bundle.
        sites: by block, in its order.

    Attributes:
        carries: mean derivatives by block, as `CarriedErrorPass` takes them; empty until `learn`.

    Raises:
        UsageError: the bundle has no backward graphs of its scorers.
    """

    def __init__(self, engine: Engine, sites: Mapping[int, Sequence[CarriedSite]]) -> None:
        self._engine = engine
        self._sites = dict(sites)
        manifest = engine.bundle.manifest
        self._hidden_size = manifest.model.hidden_size
        self._graphs = BackwardGraphs(engine.model, scorers_only=True)
        self._cutter = ExampleCutter.of(manifest, PART_TOKENS)
        every = [site for own in sites.values() for site in own]
        self._names = tuple(name for site in every for name in sorted(site.trains))
        self.carries: dict[int, Float32] = {}

    @property
    def probed(self) -> tuple[int, ...]:
        """The blocks whose mean derivative is learned."""
        return probed_blocks(self._sites, self._engine.num_blocks)

    def learn(self, batches: Iterable[Batch], seed: int) -> int:
        """Learn the mean derivatives of the last blocks, with the bundle's own trainables.

        Args:
            batches: of rows to learn from.
            seed: of the perturbations.
        Returns:
            Number of rows that the model evaluated.
        Raises:
            DivergedError: a number is not finite.

        Memory:
            See `learning_bytes`.
        """
        blocks = self.probed
        params = self._engine.bundle.trainables()
        sums = OrderedSums()
        for name in [f"{block}.{kind}" for block in blocks for kind in (IN_IN, IN_OUT)]:
            # Written at once: passes that grow look to the memory guard as if each would.
            sums.total[name] = np.full((self._hidden_size,) * 2, 0.0)
        taken = list(batches) if blocks else []
        rows = number = 0
        while number < len(taken):
            batch = taken[number]
            rows += 2 * batch.num_rows
            if self.probe(batch, params, seed + number, sums):
                number += 1
                continue
            number = 0
            for total in sums.total.values():
                total[...] = 0.0
        self.carries = {block: _solve(sums.total, block) for block in blocks if rows}
        self._engine.note_learned(sum(own.nbytes for own in self.carries.values()))
        return rows

    def probe(
        self, batch: Batch, params: Mapping[str, Float32], seed: int, sums: OrderedSums
    ) -> bool:
        """Add sums over the tokens of a batch to those so far; see `BlockProbePass`.

        Returns:
            Were they added once? Not if memory was short and the pass ran again: some of its parts
            may be there twice.
        """
        begun = 0
        blocks = self._engine.sampled or self.probed  # a rehearsal has blocks that stand for them
        code = code_matrices((NOISE, -NOISE))
        entries = EntryNoise(seed, NOISE, tuple(sorted(blocks)), batch.seq, self._hidden_size)

        def make(work: Work) -> Forward:
            own = (work, code, entries.blocks[0], None, 0, "all")
            return BlockProbePass(*own, entries=entries, sums=sums)

        def cut(taken: Batch) -> list[Chunk]:
            nonlocal begun
            begun += 1
            return sums.begin(longest_first(self._cutter.cut(taken)), more=True)

        # Not reserved: the sums are there between passes, and the plan has counted them.
        self._engine.run(batch, SharedParams(params), make, cut)
        return begun == 1

    def rehearse(self, batch: Batch, params: Mapping[str, Float32]) -> None:
        """Run a pass that learns, in blocks that stand for others; the results are discarded."""
        if self.probed:
            self.probe(batch, params, 0, OrderedSums())

    def gradient(
        self,
        batch: Batch,
        params: Mapping[str, Float32],
        scope: Scope = "all",
        cache: Cache | None = None,
        cache_block: int = 0,
    ) -> FirstOrderResult:
        """Losses of a batch, and the gradient of their mean, as `FirstOrderGradient` gives them.

        Args:
            batch: E examples.
            params: every trainable tensor by name.
            scope: tokens the adapters act on.
            cache: states cached between passes, of whole sequences.
            cache_block: where its states enter, at most the first site.
        Raises:
            UsageError: the cache is one of last tokens.

        Memory:
            For each worker, of one part: of every scored token and site the product A x, and x
            where A trains.
        """
        cache = NO_CACHE if cache is None else cache
        if not isinstance(cache, WholeSequences):
            raise UsageError("errors are carried over whole sequences, not over last tokens alone")
        sums = OrderedSums()
        way = WayBack(self._graphs, self._engine.num_blocks, self._names, sums)
        states = cache.states()

        def make(work: Work) -> Forward:
            return CarriedErrorPass(
                *(work, None, 0, states, cache_block, scope),
                way=way,
                sites=self._sites,
                carries=self.carries,
                factors=params,
            )

        def cut(taken: Batch) -> list[Chunk]:
            return sums.begin(longest_first(self._cutter.cut(taken)))

        chunks = self._engine.run(batch, SharedParams(params), make, cut, planned="gradient")
        chunks.sort(key=lambda chunk: int(chunk.index[0]))  # as the examples are in the batch
        losses = np.concatenate([chunk.scores for chunk in chunks])
        sampled = self._engine.sampled is not None  # not all blocks ran
        mean = {
            name: np.zeros_like(params[name])
            if sampled
            else (sums.total[name] / len(losses)).astype(np.float32)
            for name in self._names
        }
        return FirstOrderResult(losses, mean)


def probed_blocks(sites: Mapping[int, Sequence[CarriedSite]], total: int) -> tuple[int, ...]:
    """The blocks whose mean derivative is learned: of the last ones those that errors pass.

    Args:
        sites: by block.
        total: number of blocks of the model.
    """
    first = min(sites)
    first += all(site.last for site in sites[first])
    return tuple(range(max(first, total - LEARNED), total))


def learning_bytes(hidden_size: int, blocks: int) -> int:
    """Most bytes that learning the mean derivatives of blocks takes besides its passes.

    Two sums (H, H) in float64 for each block, and as much as four while one part is added and
    another waits for its turn, or while `_solve` has copies.
    """
    return 8 * hidden_size**2 * (2 * blocks + 4) if blocks else 0


def _solve(total: dict[str, Float64], block: int) -> Float32:
    """The mean derivative D (H, H) of what a block adds; takes its sums out of `total`.

    Changes are rows, left = entered D', and so is the error: D' e as a row is e D.
    """
    known, answer = total.pop(f"{block}.{IN_IN}"), total.pop(f"{block}.{IN_OUT}")
    if not (np.isfinite(known).all() and np.isfinite(answer).all() and np.trace(known) > 0):
        raise DivergedError(
            f"block {block} gives numbers that are not finite where what enters it is perturbed"
        )
    known[np.diag_indices_from(known)] += RIDGE * np.trace(known) / len(known)
    derivative: Float32 = np.linalg.solve(known, answer).T.astype(np.float32)
    return derivative
