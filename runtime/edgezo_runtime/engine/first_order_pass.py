"""Passes that go forward as for scores, and carry the gradient back from them, block by block.

From `WayBack.first_block` on, the hidden states at the entry of every block are kept, nothing else.
Each backward graph computes again what is inside its block. The `Scheduler` says which part goes
back through which block when: where blocks are streamed, all parts of a wave go back through one
stretch of blocks before the one in front of it is fetched.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.data.batches import Batch
from edgezo_runtime.engine.answer_pass import AnswerPass
from edgezo_runtime.engine.backward import BackwardGraphs
from edgezo_runtime.engine.chunks import Chunk, answer_chunk, runs
from edgezo_runtime.engine.forward import SCORED_POSITIONS, BlockInputs, ScoringPass, WholePass
from edgezo_runtime.engine.losses import example_losses, score_gradients
from edgezo_runtime.engine.rotary_sides import ONE_SIDE, RotarySides

Float32 = npt.NDArray[np.float32]

PART_TOKENS = 256
"""Tokens that go back through a block together; one example may have more."""

PART_ANSWERS = 32
"""Last tokens that go back through a block together, at most."""

PART_PAST_BYTES = 64 << 20
"""Keys and values, float16, of the prompts whose last tokens go back through a block together; two
prompts may have more. It is the same under every budget, as the sums of a step's gradient are."""


@dataclass(frozen=True, slots=True)
class ExampleCutter:
    """Cuts batches into parts between examples, always at the same places.

    Attributes:
        part_tokens: tokens of a part; one example may have more.
        max_seq: tokens of the longest sequence the model takes.
        sides: rows that no part may mix.
    """

    part_tokens: int
    max_seq: int
    sides: RotarySides = ONE_SIDE

    @classmethod
    def of(cls, manifest: Manifest, part_tokens: int) -> ExampleCutter:
        """That of a model, whose virtual tokens are in front of every sequence."""
        longest = manifest.model.max_seq + manifest.scheme.prompt_tokens
        return cls(part_tokens, longest, RotarySides.of(manifest))

    def cut(self, batch: Batch) -> list[Chunk]:
        """Cut a batch; every part is padded to its own longest sequence only.

        Pairs of texts stay together: the loss of each depends on all.
        """
        whole = batch.kind == "pairs"
        each = batch.num_rows // batch.num_examples
        rows, beyond = batch.positions[:, 0], self.sides.beyond(batch)
        chunks: list[Chunk] = []
        start = 0
        while start < batch.num_rows:
            stop, longest = start, 0
            while stop < batch.num_rows:
                own = int(batch.lengths[stop : stop + each].max())
                even = self.sides.within(own + own % 2, bool(beyond[stop]))
                longer = max(longest, own, min(even, self.max_seq))
                full = not whole and (stop + each - start) * longer > self.part_tokens
                if stop > start and (full or beyond[stop] != beyond[start]):
                    break
                stop, longest = stop + each, longer
            first, last = (int(place) for place in np.searchsorted(rows, [start, stop]))
            positions = batch.positions[first:last] - np.array([start, 0])
            chunks.append(Chunk(np.arange(start, stop), longest, positions, slice(first, last)))
            start = stop
        return chunks

    def answers(self, batch: Batch, token_bytes: int) -> list[Chunk]:
        """Cut a batch of which one token per sequence is evaluated.

        Args:
            batch: the sequences.
            token_bytes: bytes of the keys and values of one earlier token.
        """
        size = answers_of_part(int(batch.lengths.max()), token_bytes, batch.num_rows)
        return [answer_chunk(rows) for rows in runs(self.sides.beyond(batch), size)]


def answers_of_part(longest: int, token_bytes: int, rows: int) -> int:
    """Count the last tokens that go back together: an even number, as an odd one is padded.

    All parts but the last have so many, in as few parts as there can be: equal ones keep workers
    equally long, and the largest is no larger than it has to be.

    Args:
        longest: tokens of the longest prompt.
        token_bytes: bytes of the keys and values of one token.
        rows: last tokens of the batch.
    """
    fits = PART_PAST_BYTES // max(1, longest * token_bytes)
    most = max(2, min(PART_ANSWERS, fits - fits % 2))
    even = -(-rows // -(-rows // most))
    return even + even % 2


def longest_first(parts: Iterable[Chunk]) -> list[Chunk]:
    """Parts in the order in which they begin and are added.

    No worker is left with a long part at the end, and those that go through streamed blocks
    together are about equally long, so that they wait little for each other.
    """
    return sorted(parts, key=lambda part: (-part.rows * part.tokens, -part.tokens))


class OrderedSums:
    """Adds the gradients of parts, block by block, in the order of the parts.

    It does not matter which part is through a block first, nor which block a part is through first:
    a tensor belongs to one block. The gradients of a part in a block are held only until all
    earlier parts are through that block.
    """

    def __init__(self) -> None:
        self.total: dict[str, npt.NDArray[np.float64]] = {}
        self._waiting: dict[tuple[int, int], dict[str, Float32]] = {}
        self._number: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._lock = threading.Lock()

    def begin(self, parts: list[Chunk], *, more: bool = False) -> list[Chunk]:
        """Number the parts whose gradients will be added, to the sums so far if they are more."""
        if not more:
            self.total.clear()
        self._waiting.clear()
        self._number = {id(part): number for number, part in enumerate(parts)}
        self._next.clear()
        return parts

    def add(self, part: Chunk, block: int, gradients: dict[str, Float32]) -> None:
        """Add the gradients of a part in a block. Called from several threads."""
        with self._lock:
            self._waiting[block, self._number[id(part)]] = gradients
            number = self._next.get(block, 0)
            while (block, number) in self._waiting:
                for name, grad in self._waiting.pop((block, number)).items():
                    # Cast first: buffers that numpy is refused inside an operation end the process.
                    wide = grad.astype(np.float64)
                    if name in self.total:
                        self.total[name] += wide
                    else:
                        self.total[name] = wide
                number += 1
            self._next[block] = number


@dataclass(frozen=True, slots=True)
class WayBack:
    """How gradients come back, and where they go.

    Attributes:
        graphs: the backward graphs.
        first_block: the first block that they go back through.
        names: tensors whose gradients are wanted.
        sums: of those gradients, over the parts of the batch.
    """

    graphs: BackwardGraphs
    first_block: int
    names: tuple[str, ...]
    sums: OrderedSums


class _FirstOrderPass(ScoringPass):
    """Evaluates one group, and goes back from the scores. To be mixed into a pass that starts."""

    def __init__(self, *args: Any, way: WayBack) -> None:
        super().__init__(*args)
        self._way = way
        self._graphs = way.graphs
        self._wanted = frozenset(way.names)
        self.back_to = way.first_block

    def wave_bytes(self, chunk: Chunk) -> int:
        """Bytes per sequence, with the states that are kept at the entries of blocks."""
        blocks = len(self._model.blocks) - self._way.first_block
        kept = 4 * blocks * chunk.tokens * self._manifest.model.hidden_size
        return super().wave_bytes(chunk) + kept

    def start(self, chunk: Chunk) -> None:
        """Start the chunk; no states are kept yet."""
        super().start(chunk)
        chunk.kept = []

    def enter(self, index: int, chunk: Chunk) -> BlockInputs:
        """Keep what enters the blocks that the gradient goes back through."""
        inputs = super().enter(index, chunk)
        if index >= self._way.first_block:
            entry = chunk.hidden
            if (
                not self.skips(index) and len(self._segments(self._model.blocks[index], chunk)) > 1
            ):  # they overwrite it
                entry = self._model.value(entry.numpy().copy())
            chunk.kept.append(entry)
        return inputs

    def end(self, chunk: Chunk) -> None:
        """Score, and make the gradient at the last hidden states."""
        scores = np.concatenate([self._scores(chunk, part) for part in _stretches(chunk)])
        own = self._part(chunk)
        losses = example_losses(own, scores[None])[0]
        slopes = score_gradients(own, scores)
        grad: Any = None
        for part in _stretches(chunk):
            share = self._score_gradient(chunk, part, scores[part], slopes[part])
            grad = share if grad is None else self._model.sum(grad, share)
        chunk.hidden, chunk.grad = None, grad
        chunk.scores = losses

    def back(self, index: int, chunk: Chunk) -> None:
        """Carry the gradient from the result of a block to its entry, and add up those inside."""
        hidden = chunk.kept.pop()
        if self.skips(index):
            return
        graph = self._model.blocks[index]
        feed = {**chunk.inputs, "hidden": hidden, **self._past(index, chunk)}
        for name, tensor in graph.trainables.items():
            feed[name] = self._model.value(self._work.params.copies(tensor, chunk.index))
        found = self._graphs.through_block(index).run(graph, feed, chunk.grad)
        chunk.grad = found.pop("hidden")
        del feed, hidden  # what the block took is not in memory while others use what it made
        self._work.after_block()
        named = {graph.trainables[name]: value for name, value in found.items()}
        own = {
            name: self._model.array(value)[0]
            for name, value in named.items()
            if name in self._wanted
        }
        self._way.sums.add(chunk, index, own)

    def _scores(self, chunk: Chunk, part: slice) -> Float32:
        return self._score(chunk, chunk.positions[part], self._targets(chunk)[part])

    def _targets(self, chunk: Chunk) -> npt.NDArray[np.int64]:
        return self.batch.targets[chunk.scored]

    def _score_gradient(self, chunk: Chunk, part: slice, scores: Float32, slopes: Float32) -> Any:
        """Gradient at the last hidden states from that at some of the scores, an OrtValue."""
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

    def _part(self, chunk: Chunk) -> Batch:
        """The examples of a chunk as a batch of their own."""
        raise NotImplementedError


class WholeFirstOrderPass(_FirstOrderPass, WholePass):
    """Goes back through whole sequences."""

    def _part(self, chunk: Chunk) -> Batch:
        return examples_of(self.batch, chunk, chunk.index)


class AnswerFirstOrderPass(_FirstOrderPass, AnswerPass):
    """Goes back through last tokens."""

    def _part(self, chunk: Chunk) -> Batch:
        return examples_of(self.batch, chunk, chunk.index[: len(chunk.positions)])


def _stretches(chunk: Chunk) -> list[slice]:
    """The scored positions, `SCORED_POSITIONS` at a time."""
    count = len(chunk.positions)
    starts = range(0, count, SCORED_POSITIONS)
    return [slice(start, min(start + SCORED_POSITIONS, count)) for start in starts]


def examples_of(batch: Batch, chunk: Chunk, rows: npt.NDArray[np.int64]) -> Batch:
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
