"""The stages of a forward pass for a chunk: start, blocks, end; for gradients, blocks back.

`WholePass` evaluates whole sequences. `AnswerPass` evaluates their last tokens on top of cached
keys and values, and `PromptPass` makes those that an `AnswerPass` finds missing. The `Scheduler`
decides which chunk is at which stage when.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest_types import PAST, SLOTS
from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.devices.cpu import CPU
from edgezo_runtime.engine.chunks import Chunk, Cutter
from edgezo_runtime.engine.loaded_model import LoadedGraph, LoadedModel
from edgezo_runtime.engine.params import Params
from edgezo_runtime.engine.segmented_rows import run_in_segments, segments_of
from edgezo_runtime.engine.sessions import require_shape, run_graph
from edgezo_runtime.errors import UsageError

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

FirstActive = int | tuple[int, ...]

SCORED_POSITIONS = 256
"""Positions the token scorer takes at once; each holds a chunk of the vocabulary in float32."""


class StateCache(Protocol):
    """Hidden states of sequences at the entry of one block, cached between passes."""

    def read(self, keys: Sequence[int], tokens: int) -> Float32 | None:
        """(len(keys), tokens, H) float32; None if one is missing."""

    def write(self, keys: Sequence[int], lengths: Int64, states: Float32) -> Float32:
        """Cache states (len(keys), S, H) and return them as a later read gives them."""


class BlockInputs(NamedTuple):
    """The inputs of a block for a chunk, besides the hidden states.

    Attributes:
        params: the trainable inputs.
        code: (code, decode), OrtValues (G, G).
        keeps_past: are the keys and values that the block computes used later?
    """

    params: Params
    code: Sequence[Any]
    keeps_past: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """A batch to evaluate, with the model and the trainable inputs.

    Attributes:
        model: the graphs.
        batch: B sequences.
        params: the trainable inputs.
        after_block: called after every block that a chunk went through.
        chunk_tokens: tokens of a segment of a row that is longer than a chunk.
        sample: blocks to run; the others are skipped. None for all.
    """

    model: LoadedModel
    batch: Batch
    params: Params
    after_block: Callable[[], None]
    chunk_tokens: int
    sample: frozenset[int] | None = None


class Forward:
    """One evaluation of a batch.

    Args:
        work: the batch, the model and the trainable inputs.

    Attributes:
        back_to: the last block that chunks go back through after `end`; None for no way back.
    """

    back_to: int | None = None

    def __init__(self, work: Work) -> None:
        self.groups = 1
        self._staircase = False
        self.batch = work.batch
        self._work = work
        self._model = work.model
        self._manifest = work.model.bundle.manifest
        self._one = (work.model.value(np.ones((1, 1), np.float32)),) * 2

    def before(self, wave: Sequence[Chunk], cutter: Cutter) -> tuple[Forward, list[Chunk]] | None:
        """The pass and the chunks that have to be evaluated before these chunks can start."""
        return None

    def start(self, chunk: Chunk) -> None:
        """Make the hidden states at the entry of block `chunk.entry`."""
        raise NotImplementedError

    def block(self, index: int, chunk: Chunk) -> None:
        """Take a chunk through a block: `enter`, the graph, `leave`."""
        inputs = self.enter(index, chunk)
        if self.skips(index):
            return
        graph = self._model.blocks[index]
        feed = dict(graph.weights)
        for name in graph.inputs:
            if name == "hidden":
                feed[name] = chunk.hidden
            elif name == "code":
                feed[name] = inputs.code[0]
            elif name == "decode":
                feed[name] = inputs.code[1]
            else:
                feed[name] = chunk.inputs[name]
        feed |= self._trainables(index, chunk, inputs.params)
        segments = self._segments(graph, chunk)
        past: list[Any]
        if len(segments) > 1:
            past = run_in_segments(graph, feed, segments, self._model)
        else:
            outputs = [graph.output, *(("key", "value") if inputs.keeps_past else ())]
            taps = self.taps(index)
            feed |= self._past(index, chunk)
            shape = tuple(chunk.hidden.shape())
            chunk.hidden, *past = run_graph(graph.session, [*outputs, *taps], feed)
            if taps:
                self.tapped(index, chunk, [self._model.array(past.pop()) for _ in taps][::-1])
            require_shape(chunk.hidden, shape, f"hidden states of block {index}")
            if graph.past is not None:
                heads, size = graph.past
                sizes: tuple[int, ...] = (chunk.tokens,)
                if not graph.new_only:
                    sizes = self.past_sizes(chunk, int(feed[PAST[0]].shape()[2]))
                for value in past:
                    found = int(value.shape()[2])
                    total = found if found in sizes else sizes[0]
                    states = shape[0], heads, total, size
                    require_shape(value, states, f"keys and values of block {index}")
        del feed  # what the block took is not in memory while others use what it made
        self._work.after_block()
        if inputs.keeps_past:
            self.leave(index, chunk, past)

    def enter(self, index: int, chunk: Chunk) -> BlockInputs:
        """Prepare a chunk for a block, and choose what the block takes."""
        return BlockInputs(self._work.params, self._one)

    def leave(self, index: int, chunk: Chunk, past: Sequence[Any]) -> None:
        """Take over the keys and values that a block made, OrtValues, where they are wanted."""

    def past_sizes(self, chunk: Chunk, before: int) -> tuple[int, ...]:
        """The tokens that keys and values may have after a block that took `before` of them."""
        return (before + chunk.tokens,)

    def taps(self, index: int) -> Sequence[str]:
        """Further outputs of a block that are wanted; not of rows that go through in segments."""
        return ()

    def tapped(self, index: int, chunk: Chunk, values: Sequence[Float32]) -> None:
        """Take over the outputs that `taps` named."""

    def skips(self, index: int) -> bool:
        """Is a block skipped, because others stand for it?"""
        return self._work.sample is not None and index not in self._work.sample

    def end(self, chunk: Chunk) -> None:
        """Make the result from the last hidden states, and release what is not needed any more."""
        raise NotImplementedError

    def back(self, index: int, chunk: Chunk) -> None:
        """Take a chunk back through a block."""
        raise NotImplementedError

    def wave_bytes(self, chunk: Chunk) -> int:
        """Bytes that a chunk holds per sequence besides hidden states."""
        return 0

    # --- parts ---

    def _first_tokens(self, chunk: Chunk, tokens: int) -> tuple[Int64, Int64]:
        """The first `tokens` tokens of a chunk's sequences, (R, S), and the lengths of all."""
        rows = chunk.index
        ids = self.batch.input_ids[rows, :tokens]
        if ids.shape[1] < tokens:
            pad = self._manifest.tokenizer.pad_id
            ids = np.pad(ids, ((0, 0), (0, tokens - ids.shape[1])), constant_values=pad)
        return ids, self.batch.lengths[rows]

    def _take_prologue(self, chunk: Chunk, made: tuple[Any, dict[str, Any]]) -> None:
        """Give a chunk what the prologue made of it."""
        chunk.hidden, chunk.inputs = made
        for tensor in self._manifest.graphs.prologue.outputs:
            if tensor.name in chunk.inputs and tensor.shape[:1] == ("rows",):
                chunk.by_row[tensor.name] = self._model.array(chunk.inputs[tensor.name])

    def _prologue(self, ids: Int64, lengths: Int64) -> tuple[Any, dict[str, Any]]:
        """Hidden states (R, S, H) of token ids (R, S), and the context; values of the device.

        Args:
            ids: the tokens; the scheme's prefix is put in front, for the positions of the others.
            lengths: (R,) how many of each row are no padding.
        """
        tokens = ids.shape[1]
        prefix = self._manifest.scheme.tokens[: self._manifest.scheme.prefix_tokens]
        if prefix:
            ids = np.concatenate([np.tile(np.array(prefix, np.int64), (len(ids), 1)), ids], axis=1)
        prologue = self._model.prologue
        feed = {"input_ids": CPU.put(ids), **prologue.weights}
        if "attention_mask" in prologue.inputs:
            mask = np.arange(tokens) < lengths[:, None]
            feed["attention_mask"] = CPU.put(mask.astype(np.int64))
        context = self._manifest.context
        hidden, *made = run_graph(prologue.session, ["hidden", *context], feed)
        width = self._manifest.model.hidden_size
        require_shape(hidden, (*ids.shape, width), "hidden states of the prologue")
        if prefix:
            hidden = CPU.put(CPU.fetch(hidden)[:, len(prefix) :])
        take = self._model.device.take
        return take(hidden), dict(zip(context, map(take, made), strict=True))

    def _feed_rows(self, chunk: Chunk) -> None:
        """Repeat the inputs that differ from row to row for every group."""
        chunk.nothing.clear()
        for name, value in chunk.by_row.items():
            repeats = (chunk.groups,) + (1,) * (value.ndim - 1)
            chunk.inputs[name] = self._model.value(np.tile(value, repeats))

    def _spread(self, chunk: Chunk, groups: int) -> None:
        """Add copies of the first group, and of its inputs, until there are G groups."""
        if groups == chunk.groups:
            return
        known = np.arange(chunk.groups * chunk.rows)
        more = np.tile(known[: chunk.rows], groups - chunk.groups)
        chunk.groups = groups
        chunk.hidden = self._model.rows(chunk.hidden, np.concatenate([known, more]))
        self._feed_rows(chunk)

    def _trainables(self, index: int, chunk: Chunk, params: Params) -> dict[str, Any]:
        """The trainable inputs of a block, OrtValues."""
        feed: dict[str, Any] = {}
        for name, tensor in self._model.blocks[index].trainables.items():
            copies = params.copies(tensor, chunk.index)
            if self._staircase and len(copies) > 1:  # groups to come are as the first one yet
                copies = copies[: len(copies) // self.groups * chunk.groups]
            _check_copies(tensor, len(copies), chunk.groups, chunk.rows)
            feed[name] = self._model.value(copies)
        return feed

    def _segments(self, graph: LoadedGraph, chunk: Chunk) -> list[slice]:
        """The tokens that go through a block at once; more than one segment where rows are long."""
        if graph.past is None or chunk.past is not None or not self._model.device.segments:
            return [slice(0, chunk.tokens)]
        return segments_of(chunk.groups * chunk.rows, chunk.tokens, self._work.chunk_tokens)

    def _past(self, index: int, chunk: Chunk) -> dict[str, Any]:
        """Earlier keys and values, if the block takes any."""
        shape = self._model.blocks[index].past
        if shape is None:
            return {}
        if chunk.past is not None:
            pair = chunk.past.keys_values(index, chunk.groups)
            return dict(zip(PAST, map(self._model.held, pair), strict=True))
        if shape not in chunk.nothing:
            heads, width = shape
            nothing = np.empty((chunk.groups * chunk.rows, heads, 0, width), np.float32)
            chunk.nothing[shape] = self._model.value(nothing)
        return dict.fromkeys(PAST, chunk.nothing[shape])


class ScoringPass(Forward):
    """Ends with scores of every group.

    Args:
        work: the batch, the model and the trainable inputs.
        code: (code, decode), each (G, G) float32; None means one group.
        first_active: blocks before this one are run once for all groups; see `Engine.score`.
    """

    def __init__(
        self,
        work: Work,
        code: tuple[Float32, Float32] | None,
        first_active: FirstActive,
    ) -> None:
        super().__init__(work)
        code = code or (np.ones((1, 1), np.float32),) * 2
        self.groups = len(code[0])
        self._starts = _starts(first_active, self.groups)
        self._staircase = len(set(self._starts)) > 1
        self._codes = {1: self._one}
        for count in {sum(start <= own for start in self._starts) for own in self._starts}:
            part = code[0][:count, :count], code[1][:count, :count]
            if not np.allclose(part[0] @ part[1], np.eye(count), atol=1e-5):
                raise UsageError(
                    f"{count} of {self.groups} groups start early, and their part of the code "
                    f"cannot be decoded"
                )
            self._codes[count] = tuple(map(work.model.value, part))

    def enter(self, index: int, chunk: Chunk) -> BlockInputs:
        """Have the groups that differ so far, from the first active block on."""
        count = max(1, sum(start <= index for start in self._starts))
        self._spread(chunk, count)
        return BlockInputs(self._work.params, self._codes[count])

    def end(self, chunk: Chunk) -> None:
        """Score: (G, T', C) or (G, T') for the positions of a chunk."""
        self._spread(chunk, self.groups)
        parts: list[Float32] = []
        for start in range(0, len(chunk.positions), SCORED_POSITIONS):
            own = chunk.positions[start : start + SCORED_POSITIONS]
            first = chunk.scored.start + start
            scores = self._score(chunk, own, self.batch.targets[first : first + len(own)])
            parts.append(scores.reshape(chunk.groups, len(own), *scores.shape[1:]))
        chunk.scores = np.concatenate(parts, axis=1)
        chunk.release()

    def _score(self, chunk: Chunk, positions: Int64, targets: Int64) -> Float32:
        """Scores of every group at positions of its first group, groups outermost."""
        shift = np.zeros((chunk.groups, 1, 2), np.int64)
        shift[:, 0, 0] = np.arange(chunk.groups) * chunk.rows
        places = (positions[None] + shift).reshape(-1, 2)
        wanted = np.tile(targets, chunk.groups)
        count = len(places)
        if count == 1:  # a lone row would take the matrix-vector kernel, which rounds differently
            places, wanted = np.tile(places, (2, 1)), np.tile(wanted, 2)
        feed = {"hidden": chunk.hidden, "positions": self._model.value(places)}
        graphs = self._manifest.graphs
        if self.batch.label_ids is not None:
            feed["label_ids"] = self._model.value(self.batch.label_ids)
            scorer = self._model.scorer(graphs.score_labels)
        else:
            feed["targets"] = self._model.value(wanted)
            scorer = self._model.scorer(graphs.score_tokens)
        feed |= scorer.weights
        (value,) = run_graph(scorer.session, [scorer.output], feed)
        classes = () if self.batch.label_ids is None else (len(self.batch.label_ids),)
        require_shape(value, (len(places), *classes), "scores")
        scores: Float32 = self._model.array(value)
        return scores[:count]


class WholePass(ScoringPass):
    """Evaluates whole sequences.

    Args:
        work: the batch, the model and the trainable inputs.
        code: (code, decode), each (G, G) float32; None means one group.
        first_active: blocks before this one are run once for all groups.
        cache: states at the entry of block `cache_block`; None for no cache.
        cache_block: at most `first_active`.
        scope: tokens the adapters act on.
    """

    def __init__(
        self,
        work: Work,
        code: tuple[Float32, Float32] | None,
        first_active: FirstActive,
        cache: StateCache | None,
        cache_block: int,
        scope: Scope,
    ) -> None:
        super().__init__(work, code, first_active)
        self._cache = cache if cache_block else None
        self._cache_block = cache_block
        self._scope = scope

    def start(self, chunk: Chunk) -> None:
        """Embed a chunk, or find its states at the entry of the block where it is cached."""
        rows = chunk.index
        self._take_prologue(chunk, self._prologue(*self._first_tokens(chunk, chunk.tokens)))
        lengths = self.batch.first_scored[rows] if self._scope == "answer" else np.zeros_like(rows)
        active = np.arange(chunk.tokens) >= lengths[:, None]
        chunk.by_row["active"] = active.astype(np.float32)
        chunk.by_row["past_lengths"] = np.zeros(len(rows), np.int32)
        virtual = self._manifest.scheme.prompt_tokens
        if virtual:
            slots = np.minimum(np.arange(chunk.tokens), virtual)
            chunk.by_row[SLOTS] = np.tile(slots, (len(rows), 1))
        self._feed_rows(chunk)
        chunk.entry = 0
        if self._cache is not None:
            kept = self._cache.read(self._keys(chunk), chunk.tokens)
            if kept is not None:
                chunk.entry = self._cache_block
                chunk.hidden = self._model.value(kept)

    def enter(self, index: int, chunk: Chunk) -> BlockInputs:
        """Cache the states at the entry of a block if that is where they are cached."""
        if self._cache is not None and index == self._cache_block and chunk.entry < index:
            lengths = self.batch.lengths[chunk.index]
            kept = self._cache.write(self._keys(chunk), lengths, self._model.array(chunk.hidden))
            chunk.hidden = self._model.value(kept)
        return super().enter(index, chunk)

    def _keys(self, chunk: Chunk) -> list[int]:
        return [int(key) for key in self.batch.row_keys[chunk.index]]


def _starts(first_active: FirstActive, groups: int) -> tuple[int, ...]:
    """The first block at which each group differs from the first one."""
    if isinstance(first_active, int):
        return (first_active,) * groups
    if len(first_active) != groups or list(first_active) != sorted(first_active):
        raise UsageError(
            f"first_active {first_active}: expected {groups} blocks, one per group, ascending"
        )
    return first_active


def _check_copies(name: str, copies: int, groups: int, rows: int) -> None:
    """Refuse what a graph would spread over the wrong rows: it only sees that P divides R."""
    if copies not in (1, groups, groups * rows):
        raise UsageError(
            f"'{name}': {copies} copies for {groups} groups of {rows} sequences, expected 1, "
            f"{groups} or {groups * rows}"
        )
