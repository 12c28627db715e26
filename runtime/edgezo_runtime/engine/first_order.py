"""Exact gradients of the last blocks' trainable tensors, by going back through their graphs.

A part of the batch goes forward through the model as it does for scores; from the first block of
the tail on the hidden states at the entry of every block are kept, nothing else. Behind the scores
the gradient comes back block by block; each backward graph computes again what is inside its block.
Where the adapters act on last tokens only, those alone go forward and back: the keys and values of
the tokens before them are no function of what trains. The parts are the same however many threads
there are and however short memory is, and their gradients are added in their order, so the bits of
the sum are always the same.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.answer_pass import AnswerPass
from edgezo_runtime.engine.backward import BackwardGraphs
from edgezo_runtime.engine.chunks import Chunk, answer_chunk
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.forward import (
    SCORED_POSITIONS,
    Forward,
    Params,
    ScoringPass,
    SharedParams,
    WholePass,
    Work,
)
from edgezo_runtime.engine.losses import example_losses, score_gradients
from edgezo_runtime.engine.prefix_cache import AnswerCache, PrefixCache
from edgezo_runtime.errors import UsageError

Float32 = npt.NDArray[np.float32]

PART_TOKENS = 256
"""Tokens that go back through a block together; one example may have more."""

PART_ANSWERS = 32
"""Last tokens that go back through a block together."""


@dataclass(frozen=True, slots=True)
class FirstOrderResult:
    """What one batch gives.

    Attributes:
        losses: (E,) float64, nats.
        gradients: of the mean loss by every tensor of the tail that trains, in its own shape.
    """

    losses: npt.NDArray[np.float64]
    gradients: dict[str, Float32]


class FirstOrderGradient:
    """Gradients of the blocks from `first_block` on.

    Args:
        engine: runs the bundle.
        first_block: the tail's first block.
        part_tokens: see `PART_TOKENS`; results depend on it in their last bits.
        tensors: those of the tail that train; empty for all.
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
        self._cutter = ExampleCutter.of(engine, part_tokens)
        self._graphs = BackwardGraphs(engine.model)
        infos = engine.bundle.manifest.trainables
        able = tuple(i.name for i in infos if i.block >= first_block and i.trains)
        self.names = tuple(tensors) or able

    def gradient(
        self,
        batch: Batch,
        params: Mapping[str, Float32],
        scope: Scope = "all",
        cache: PrefixCache | AnswerCache | None = None,
        cache_block: int = 0,
    ) -> FirstOrderResult:
        """Losses of a batch, and the gradient of their mean.

        Args:
            batch: E examples.
            params: every trainable tensor by name.
            scope: tokens the adapters act on.
            cache: what is kept between passes, as for `Engine.score`.
            cache_block: where its states enter, at most `first_block`.
        Raises:
            BudgetStopError: memory is short, and nothing is left to save any.

        Memory:
            For each worker, of one part: the hidden states at the entry of every block of the tail,
            and the activations and float32 weights inside one block.
        """
        sums = _OrderedSums()

        def make(work: Work) -> Forward:
            way = _WayBack(self._engine, self._graphs, self.first_block, sums, self.names)
            if isinstance(cache, AnswerCache):
                return _AnswerFirstOrderPass(work, None, 0, cache, cache_block, way=way)
            return _WholeFirstOrderPass(work, None, 0, cache, cache_block, scope, way=way)

        def cut(taken: Batch) -> list[Chunk]:
            parts = _cut_answers if isinstance(cache, AnswerCache) else self._cutter.cut
            return sums.begin(parts(taken))

        chunks = self._engine.run(batch, SharedParams(params), make, cut)
        losses = np.concatenate([chunk.scores for chunk in chunks])
        mean = {
            name: (sums.total[name] / len(losses)).astype(np.float32)
            if name in sums.total  # not all are where blocks are sampled
            else np.zeros_like(params[name])
            for name in self.names
        }
        return FirstOrderResult(losses, mean)


@dataclass(frozen=True, slots=True)
class ExampleCutter:
    """Cuts batches between examples, always at the same places.

    Attributes:
        part_tokens: tokens of a part; one example may have more.
        max_seq: tokens of the longest sequence the model takes.
    """

    part_tokens: int
    max_seq: int

    @classmethod
    def of(cls, engine: Engine, part_tokens: int) -> ExampleCutter:
        """That of a model, whose virtual tokens are in front of every sequence."""
        manifest = engine.bundle.manifest
        return cls(part_tokens, manifest.model.max_seq + manifest.scheme.prompt_tokens)

    def cut(self, batch: Batch) -> list[Chunk]:
        """Cut a batch; every part is padded to its own longest sequence only."""
        each = batch.num_rows // batch.num_examples
        rows = batch.positions[:, 0]
        chunks: list[Chunk] = []
        start = 0
        while start < batch.num_rows:
            stop, longest = start, 0
            while stop < batch.num_rows:
                own = int(batch.lengths[stop : stop + each].max())
                longer = max(longest, own, min(own + own % 2, self.max_seq))
                if stop > start and (stop + each - start) * longer > self.part_tokens:
                    break
                stop, longest = stop + each, longer
            first, last = (int(place) for place in np.searchsorted(rows, [start, stop]))
            positions = batch.positions[first:last] - np.array([start, 0])
            chunks.append(Chunk(np.arange(start, stop), longest, positions, slice(first, last)))
            start = stop
        return chunks


class _OrderedSums:
    """Adds the gradients of parts in the order of the parts, whichever ends first.

    No more of them are held than end before an earlier one does.
    """

    def __init__(self) -> None:
        self.total: dict[str, npt.NDArray[np.float64]] = {}
        self._waiting: dict[int, dict[str, Float32]] = {}
        self._number: dict[int, int] = {}
        self._next = 0
        self._lock = threading.Lock()

    def begin(self, parts: list[Chunk]) -> list[Chunk]:
        """Forget what was added; these parts are to come."""
        self.total.clear()
        self._waiting.clear()
        self._number = {id(part): number for number, part in enumerate(parts)}
        self._next = 0
        return parts

    def add(self, part: Chunk, gradients: dict[str, Float32]) -> None:
        """A part is through. Called from several threads."""
        with self._lock:
            self._waiting[self._number[id(part)]] = gradients
            while self._next in self._waiting:
                for name, grad in self._waiting.pop(self._next).items():
                    # Cast first: buffers that numpy is refused inside an operation end the process.
                    wide = grad.astype(np.float64)
                    if name in self.total:
                        self.total[name] += wide
                    else:
                        self.total[name] = wide
                self._next += 1


@dataclass(frozen=True, slots=True)
class _WayBack:
    """The engine, its backward graphs, the tail's first block and tensors, and their sums."""

    engine: Engine
    graphs: BackwardGraphs
    first_block: int
    sums: _OrderedSums
    names: tuple[str, ...]


class _FirstOrderPass(ScoringPass):
    """Evaluates one group, and goes back behind the scores. To be mixed into a pass that starts."""

    def __init__(self, *args: Any, way: _WayBack) -> None:
        super().__init__(*args)
        self._way = way
        self._graphs = way.graphs
        self._first = way.first_block

    def wave_bytes(self) -> int:
        """What is kept of a sequence, also at the entries of blocks."""
        blocks = len(self._model.blocks) - self._first
        tokens = self._tokens_kept()
        kept = 4 * blocks * tokens * self._manifest.model.hidden_size
        return super().wave_bytes() + kept

    def _tokens_kept(self) -> int:
        """Tokens of the longest sequence that go through the blocks."""
        return self.batch.seq

    def start(self, chunk: Chunk) -> None:
        """Embed a chunk, or find its states; nothing is kept yet."""
        super().start(chunk)
        chunk.kept = []

    def _run_block(
        self,
        index: int,
        chunk: Chunk,
        params: Params,
        code: Sequence[Any],
        keep: bool = False,
    ) -> list[Any]:
        """Run a block; keep what enters the tail's."""
        if index >= self._first:
            entry = chunk.hidden
            if len(self._pieces(self._model.blocks[index], chunk)) > 1:  # they overwrite it
                entry = self._model.value(entry.numpy().copy())
            chunk.kept.append(entry)
        return super()._run_block(index, chunk, params, code, keep)

    def end(self, chunk: Chunk) -> None:
        """Score, and go back."""
        scores = np.concatenate([self._scores(chunk, part) for part in _stretches(chunk)])
        own = self._part(chunk)
        losses = example_losses(own, scores[None])[0]
        slopes = score_gradients(own, scores)
        grad = np.zeros(chunk.hidden.shape(), np.float32)
        for part in _stretches(chunk):
            grad += self._score_gradient(chunk, part, scores[part], slopes[part])
        gradients: dict[str, Float32] = {}
        for index in range(len(self._model.blocks) - 1, self._first - 1, -1):
            chunk.hidden = chunk.kept.pop()
            grad = self._back(index, chunk, grad, gradients)
        chunk.release()
        self._way.sums.add(
            chunk, {name: gradients[name] for name in self._way.names if name in gradients}
        )
        chunk.scores = losses

    def _scores(self, chunk: Chunk, part: slice) -> Float32:
        return self._score(chunk, chunk.positions[part], self._targets(chunk)[part])

    def _targets(self, chunk: Chunk) -> npt.NDArray[np.int64]:
        return self.batch.targets[chunk.scored]

    def _score_gradient(self, chunk: Chunk, part: slice, scores: Float32, slopes: Float32) -> Any:
        """Gradient at the last hidden states from that at some of the scores."""
        feed = {"hidden": chunk.hidden, "positions": self._model.value(chunk.positions[part])}
        if self.batch.label_ids is not None:
            info = self._manifest.graphs.score_labels
            feed["label_ids"] = self._model.value(self.batch.label_ids)
        else:
            info = self._manifest.graphs.score_tokens
            feed["targets"] = self._model.value(self._targets(chunk)[part])
            feed["log_probs"] = self._model.value(scores)
        slope = self._model.value(slopes)
        return self._graphs.through(info.file).run(self._model.scorer(info), feed, slope)["hidden"]

    def _back(
        self, index: int, chunk: Chunk, grad: Float32, gradients: dict[str, Float32]
    ) -> Float32:
        """Go back through a block; note the gradients of its tensors."""
        if self._work.sample is not None and index not in self._work.sample:
            return grad
        graph = self._model.blocks[index]
        feed = {**chunk.inputs, "hidden": chunk.hidden, **self._past(index, chunk)}
        for name, tensor in graph.trainables.items():
            feed[name] = self._model.value(self._work.params.copies(tensor, chunk.index))
        file = self._manifest.graphs.blocks[index].file
        found = self._graphs.through(file).run(graph, feed, self._model.value(grad))
        grad = found.pop("hidden")
        gradients |= {graph.trainables[name]: value[0] for name, value in found.items()}
        self._work.after_block()
        self._way.engine.leave(index)
        return grad

    def _part(self, chunk: Chunk) -> Batch:
        """The examples of a chunk as a batch of their own."""
        raise NotImplementedError


class _WholeFirstOrderPass(_FirstOrderPass, WholePass):
    """The same with whole sequences."""

    def _part(self, chunk: Chunk) -> Batch:
        return _part(self.batch, chunk, chunk.index)


class _AnswerFirstOrderPass(_FirstOrderPass, AnswerPass):
    """The same with last tokens."""

    def _tokens_kept(self) -> int:
        return 1

    def _part(self, chunk: Chunk) -> Batch:
        return _part(self.batch, chunk, chunk.index[: len(chunk.positions)])


def _cut_answers(batch: Batch) -> list[Chunk]:
    """Parts of last tokens, always the same."""
    starts = range(0, batch.num_rows, PART_ANSWERS)
    return [answer_chunk(slice(s, min(s + PART_ANSWERS, batch.num_rows))) for s in starts]


def _stretches(chunk: Chunk) -> list[slice]:
    """The scored positions, not too many at a time."""
    count = len(chunk.positions)
    starts = range(0, count, SCORED_POSITIONS)
    return [slice(start, min(start + SCORED_POSITIONS, count)) for start in starts]


def _part(batch: Batch, chunk: Chunk, rows: npt.NDArray[np.int64]) -> Batch:
    """The examples of some rows, which are a chunk's, as a batch of their own."""
    examples = batch.row_example[rows]
    return dataclasses.replace(
        batch,
        example_ids=batch.example_ids[rows],
        input_ids=batch.input_ids[rows],
        lengths=batch.lengths[rows],
        positions=chunk.positions,
        targets=batch.targets[chunk.scored],
        row_example=examples - examples[0],
        labels=batch.labels[examples[0] : examples[-1] + 1],
    )
