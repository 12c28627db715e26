"""Passes that go forward as for scores, and carry the gradient back from them, block by block.

From `WayBack.first_block` on, the hidden states at the entry of every block are kept, nothing else.
Each backward graph computes again what is inside its block.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
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
"""Last tokens that go back through a block together."""


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
        """Cut a batch; every part is padded to its own longest sequence only."""
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
                full = (stop + each - start) * longer > self.part_tokens
                if stop > start and (full or beyond[stop] != beyond[start]):
                    break
                stop, longest = stop + each, longer
            first, last = (int(place) for place in np.searchsorted(rows, [start, stop]))
            positions = batch.positions[first:last] - np.array([start, 0])
            chunks.append(Chunk(np.arange(start, stop), longest, positions, slice(first, last)))
            start = stop
        return chunks

    def answers(self, batch: Batch) -> list[Chunk]:
        """Cut a batch of which one token per sequence is evaluated."""
        return [answer_chunk(rows) for rows in runs(self.sides.beyond(batch), PART_ANSWERS)]


class OrderedSums:
    """Adds the gradients of parts in the order of the parts, whichever part ends first.

    It holds the gradients of a part only until all earlier parts have ended.
    """

    def __init__(self) -> None:
        self.total: dict[str, npt.NDArray[np.float64]] = {}
        self._waiting: dict[int, dict[str, Float32]] = {}
        self._number: dict[int, int] = {}
        self._next = 0
        self._lock = threading.Lock()

    def begin(self, parts: list[Chunk]) -> list[Chunk]:
        """Reset the sums, and number the parts whose gradients will be added."""
        self.total.clear()
        self._waiting.clear()
        self._number = {id(part): number for number, part in enumerate(parts)}
        self._next = 0
        return parts

    def add(self, part: Chunk, gradients: dict[str, Float32]) -> None:
        """Add the gradients of a part. Called from several threads."""
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
class WayBack:
    """How gradients come back, and where they go.

    Attributes:
        graphs: the backward graphs.
        first_block: the first block that they go back through.
        names: tensors whose gradients are wanted.
        sums: of those gradients, over the parts of the batch.
        crossed: told a block that a chunk has gone back through.
    """

    graphs: BackwardGraphs
    first_block: int
    names: tuple[str, ...]
    sums: OrderedSums
    crossed: Callable[[int], None]


class _FirstOrderPass(ScoringPass):
    """Evaluates one group, and goes back from the scores. To be mixed into a pass that starts."""

    def __init__(self, *args: Any, way: WayBack) -> None:
        super().__init__(*args)
        self._way = way
        self._graphs = way.graphs
        self._first = way.first_block

    def wave_bytes(self) -> int:
        """Bytes per sequence, with the states that are kept at the entries of blocks."""
        blocks = len(self._model.blocks) - self._first
        tokens = self._tokens_kept()
        kept = 4 * blocks * tokens * self._manifest.model.hidden_size
        return super().wave_bytes() + kept

    def _tokens_kept(self) -> int:
        """Tokens of the longest sequence that go through the blocks."""
        return self.batch.seq

    def start(self, chunk: Chunk) -> None:
        """Start the chunk; no states are kept yet."""
        super().start(chunk)
        chunk.kept = []

    def enter(self, index: int, chunk: Chunk) -> BlockInputs:
        """Keep what enters the blocks that the gradient goes back through."""
        inputs = super().enter(index, chunk)
        if index >= self._first:
            entry = chunk.hidden
            if (
                not self.skips(index) and len(self._segments(self._model.blocks[index], chunk)) > 1
            ):  # they overwrite it
                entry = self._model.value(entry.numpy().copy())
            chunk.kept.append(entry)
        return inputs

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
        """Go back through a block, and add the gradients of its tensors to `gradients`."""
        if self.skips(index):
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
        self._way.crossed(index)
        return grad

    def _part(self, chunk: Chunk) -> Batch:
        """The examples of a chunk as a batch of their own."""
        raise NotImplementedError


class WholeFirstOrderPass(_FirstOrderPass, WholePass):
    """Goes back through whole sequences."""

    def _part(self, chunk: Chunk) -> Batch:
        return _part(self.batch, chunk, chunk.index)


class AnswerFirstOrderPass(_FirstOrderPass, AnswerPass):
    """Goes back through last tokens."""

    def _tokens_kept(self) -> int:
        return 1

    def _part(self, chunk: Chunk) -> Batch:
        return _part(self.batch, chunk, chunk.index[: len(chunk.positions)])


def _stretches(chunk: Chunk) -> list[slice]:
    """The scored positions, `SCORED_POSITIONS` at a time."""
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
