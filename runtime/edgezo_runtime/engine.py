"""Forward passes over the blocks of a bundle, many perturbed copies at a time.

A pass evaluates G groups (probes) of the same B sequences, R = G * B rows, row g * B + b. The rows
are cut into chunks of sequences; all groups of a sequence stay in one chunk, because the code mixes
them. Up to the first perturbed block the groups are equal, and each sequence is run once.

Parallelism is over chunks: a worker takes a chunk through all blocks with single-threaded kernels.
Threads inside a kernel would wait for each other at every one of some 2,000 operators a pass, and
wait badly when another process takes a core; a chunk waits for nobody. As a consequence the bits do
not depend on the number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle import Bundle
from edgezo_runtime.errors import BudgetStopError, UsageError
from edgezo_runtime.guard import MemoryGuard
from edgezo_runtime.loaded_model import LoadedGraph, LoadedModel, ShortOfMemoryError, run_graph
from edgezo_runtime.manifest import PAST
from edgezo_runtime.pieces import cut_tokens, run_pieces
from edgezo_runtime.prefix_cache import AnswerCache, AnswerStates, KeyValueLayout, PrefixCache
from edgezo_runtime.scope import Scope
from edgezo_runtime.sessions import ENVIRONMENT

if TYPE_CHECKING:
    from edgezo_runtime.batches import Batch

Float32 = npt.NDArray[np.float32]

CHUNK_TOKENS = 256
"""Tokens of a chunk, all groups counted: large enough for the matrix kernels, small enough that a
block's activations stay in a core's cache."""

SMALLEST_CHUNK_TOKENS = 64
"""Below this the kernels lose more than an idle worker costs."""

PAST_BYTES = 32 << 20
"""Earlier keys and values, float16, that a chunk of last tokens holds."""

SCORED_POSITIONS = 256
"""Positions the token scorer takes at once; each holds a chunk of the vocabulary in float32."""


WAVE_BYTES = 48 << 20
"""Hidden states of the chunks that go through streamed blocks together."""


class Params(Protocol):
    """Where a pass gets its trainable inputs."""

    def copies(self, name: str, rows: npt.NDArray[np.int64]) -> Float32:
        """The copies of a tensor for the sequences `rows` of the batch, which may repeat.

        Returns:
            (P, *shape) float32: P = 1 shared by all rows, G one a group, or G times the number of
            sequences, groups outermost. Called from several threads.
        """


class SharedParams:
    """The same tensors for all rows.

    Args:
        values: every trainable input by name, without the leading axis.
    """

    def __init__(self, values: Mapping[str, Float32]) -> None:
        self._values = values

    def copies(self, name: str, rows: npt.NDArray[np.int64]) -> Float32:
        """(1, *shape)."""
        return self._values[name][None]


Stage = Callable[["_Chunk"], None]


@dataclass(slots=True)
class _Chunk:
    """Sequences start..stop of a batch on their way through the blocks."""

    start: int
    stop: int
    tokens: int
    positions: npt.NDArray[np.int64]  # (T', 2), rows counted from `start`
    scored: slice  # of the batch's positions
    groups: int = 1
    repeats: int = 0  # copies of the last sequence behind it
    hidden: Any = None  # OrtValue (groups * rows, S, H) float32
    inputs: dict[str, Any] = field(default_factory=dict)  # what all blocks take
    by_row: dict[str, npt.NDArray[Any]] = field(default_factory=dict)  # the same, of one group
    past: AnswerStates | None = None
    nothing: dict[tuple[int, int], Any] = field(default_factory=dict)  # a past of no tokens
    scores: Any = None  # (groups, T', C) or (groups, T')

    @property
    def index(self) -> npt.NDArray[np.int64]:
        """Rows of the batch that a group is made of."""
        return np.minimum(np.arange(self.start, self.start + self.rows), self.stop - 1)

    @property
    def rows(self) -> int:
        """Sequences of a group."""
        return self.stop - self.start + self.repeats


class Engine:
    """Runs a bundle.

    Args:
        bundle: opened bundle.
        threads: compute threads of the process's pool; None takes one a core.
        arena_bytes: hard limit of the process's arena, None for none.
        chunk_tokens: see `CHUNK_TOKENS`. Results do not depend on it.
        guard: watches the memory at every block boundary; None for no watch.
    Raises:
        UsageError: `threads` or `chunk_tokens` is below 1.
        BundleError: a graph cannot be loaded.
        MissingExtraError: onnxruntime is not installed.
    Memory:
        The weights are one mapped file. The arena holds, for each worker, the activations of one
        chunk in one block.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        arena_bytes: int | None = None,
        chunk_tokens: int = CHUNK_TOKENS,
        guard: MemoryGuard | None = None,
    ) -> None:
        if chunk_tokens < 1:
            raise UsageError(f"chunk_tokens {chunk_tokens}: must be 1 or more")
        if threads is not None and threads < 1:
            raise UsageError(f"threads {threads}: must be 1 or more, or None for one a core")
        self.bundle = bundle
        self._chunk_tokens = chunk_tokens
        ENVIRONMENT.prepare(threads, arena_bytes)
        self._model = LoadedModel(bundle)
        self._value = self._model.value
        self.streamed: frozenset[int] = frozenset()
        self.guard = guard
        self.reliefs: list[str] = []
        self._relief = threading.Lock()
        self._one = (self._value(np.ones((1, 1), np.float32)),) * 2
        self._frozen = SharedParams(bundle.trainables())

    @property
    def num_blocks(self) -> int:
        """Blocks of the model."""
        return len(self._model.blocks)

    def score(
        self,
        batch: Batch,
        params: Params,
        code: tuple[Float32, Float32] | None = None,
        *,
        first_active: int = 0,
        cache: PrefixCache | AnswerCache | None = None,
        cache_block: int = 0,
        scope: Scope = "all",
    ) -> Float32:
        """Evaluate G groups of a batch.

        Args:
            batch: B sequences.
            params: the trainable inputs; see `Params`.
            code: (code, decode), each (G, G) float32; None means one group.
            first_active: blocks before this one have P = 1 throughout and are run once for all
                groups.
            cache: what is kept between passes; the blocks before `cache_block` must be the same in
                every pass. An `AnswerCache` is for prompts whose last token alone is scored, and
                for the scope "answer".
            cache_block: where the cached states enter; at most `first_active`.
            scope: tokens the adapters act on; see `edgezo_runtime.scope`.
        Returns:
            Label logits (G, B, C) when the batch has label words, else log-probabilities of its
            targets (G, T), float32. A row's result does not depend on the other rows.
        Raises:
            UsageError: `params` gives a number of copies that fits neither rows nor groups.
            DivergedError: a hidden state does not fit the cache.
            BudgetStopError: memory is short, and nothing is left to save any.
        """
        while True:
            try:
                return self._score_all(batch, params, code, first_active, cache, cache_block, scope)
            except (ShortOfMemoryError, MemoryError) as error:
                self._shrink(str(error) or "numpy was refused memory")

    def _score_all(
        self,
        batch: Batch,
        params: Params,
        code: tuple[Float32, Float32] | None,
        first_active: int,
        cache: PrefixCache | AnswerCache | None,
        cache_block: int,
        scope: Scope,
    ) -> Float32:
        groups = 1 if code is None else len(code[0])
        matrices = self._one if code is None else tuple(map(self._value, code))
        first_active = min(first_active, self.num_blocks)
        entry = cache_block if cache is not None else first_active

        def start(chunk: _Chunk) -> None:
            if isinstance(cache, AnswerCache):
                self._start_answers(chunk, batch, params, entry, cache)
            else:
                self._start(chunk, batch, params, entry, cache, scope)

        def block(index: int) -> Stage:
            code = self._one if index < first_active else matrices

            def run(chunk: _Chunk) -> None:
                if index == first_active:
                    self._spread(chunk, groups)
                self._run_block(index, chunk, params, code)

            return run

        def score(chunk: _Chunk) -> None:
            self._spread(chunk, groups)
            chunk.scores = self._score_chunk(chunk, batch)
            chunk.hidden = chunk.past = None

        answers = isinstance(cache, AnswerCache)
        if isinstance(cache, AnswerCache):
            chunks = self._answer_chunks(batch, groups, cache.layout)
        else:
            chunks = self._chunks(batch, groups)
        blocks = [block(index) for index in range(entry, self.num_blocks)]
        self._run(chunks, start, blocks, score, answers)
        return np.concatenate([chunk.scores for chunk in chunks], axis=1)

    def _run(
        self,
        chunks: list[_Chunk],
        start: Stage,
        blocks: list[Stage],
        end: Stage,
        answers: bool,
    ) -> None:
        """Take chunks through all stages.

        A worker takes a chunk through all blocks, so that it never waits for another. Where blocks
        are streamed, a wave of chunks goes through one block after the other instead: each is
        fetched once a wave.
        """
        if not self.streamed:

            def whole(chunk: _Chunk) -> None:
                start(chunk)
                for index, stage in enumerate(blocks, self.num_blocks - len(blocks)):
                    stage(chunk)
                    self._leave(index)
                end(chunk)

            self._map(whole, chunks)
            return
        first = self.num_blocks - len(blocks)
        for wave in self._waves(chunks, answers):
            self._map(start, wave)
            self._model.drop_vocabulary()
            for index, stage in enumerate(blocks, first):
                if index + 1 in self.streamed:
                    self._model.fetch(index + 1)
                self._map(stage, wave)
                self._leave(index)
            self._map(end, wave)
            self._model.drop_vocabulary()

    def _waves(self, chunks: list[_Chunk], answers: bool) -> Iterator[list[_Chunk]]:
        """Chunks that go through streamed blocks together."""
        a_chunk = 4 * self.bundle.manifest.model.hidden_size * self._chunk_tokens
        if answers:
            a_chunk += PAST_BYTES
        size = max(WAVE_BYTES // a_chunk, ENVIRONMENT.threads)
        for start in range(0, len(chunks), size):
            yield chunks[start : start + size]

    def _map(self, run: Stage, chunks: Sequence[_Chunk]) -> None:
        """Run a stage on every chunk; all are over when this returns, even if one fails."""
        if len(chunks) == 1 or ENVIRONMENT.threads == 1:
            for chunk in chunks:
                run(chunk)
            return
        futures = [ENVIRONMENT.workers.submit(run, chunk) for chunk in chunks]
        wait(futures)
        for future in futures:
            future.result()

    # --- memory ---

    def _leave(self, index: int) -> None:
        """Let a block's weights go if it is streamed; it may be since this pass began."""
        if index in self.streamed:
            self._model.drop(index)

    def _watch(self) -> None:
        """Look at the memory; the first time it is short, stream every block.

        Raises:
            ShortOfMemoryError: it is short, and every block is streamed already.
        """
        if self.guard is None or self.guard.pressure() is None:
            return
        with self._relief:
            reason = self.guard.pressure()  # another worker may have helped in the meantime
            if reason is None:
                return
            everything = frozenset(range(self.num_blocks))
            if self.streamed == everything:
                raise ShortOfMemoryError(reason)
            self.streamed = everything
            for index in everything:
                self._model.drop(index)
            self._model.drop_vocabulary()
            self.reliefs.append(f"{reason}: streaming all {self.num_blocks} blocks from now on")

    def _shrink(self, reason: str) -> None:
        """Halve the chunks and give back what the arena does not need.

        Raises:
            BudgetStopError: they are as small as they can be.
        """
        if self._chunk_tokens <= SMALLEST_CHUNK_TOKENS // 4:
            raise BudgetStopError(
                f"memory is short: {reason}; all blocks are streamed and chunks are as small as "
                f"they can be; give a larger --budget, or a smaller --max-seq"
            )
        self._chunk_tokens //= 2
        self._model.shrink_arena()
        self.reliefs.append(f"{reason}: chunks of {self._chunk_tokens} tokens from now on")

    # --- parts of a pass ---

    def _chunks(self, batch: Batch, groups: int) -> list[_Chunk]:
        """Cut a batch; every chunk is padded to its own longest sequence only."""
        total = groups * int(batch.lengths.sum())
        fair = -(-total // (2 * ENVIRONMENT.threads))  # two a worker, so that none waits for long
        limit = min(self._chunk_tokens, max(fair, SMALLEST_CHUNK_TOKENS))
        chunks: list[_Chunk] = []
        rows = batch.positions[:, 0]
        start = 0
        while start < batch.num_rows:
            stop, longest = start, 0
            while stop < batch.num_rows:
                longer = max(longest, self._padded(int(batch.lengths[stop])))
                if stop > start and groups * (stop + 1 - start) * longer > limit:
                    break
                stop, longest = stop + 1, longer
            first, last = (int(place) for place in np.searchsorted(rows, [start, stop]))
            positions = batch.positions[first:last] - np.array([start, 0])
            chunks.append(_Chunk(start, stop, longest, positions, slice(first, last)))
            start = stop
        return chunks

    def _answer_chunks(self, batch: Batch, groups: int, layout: KeyValueLayout) -> list[_Chunk]:
        """Cut a batch of which one token a sequence is evaluated."""
        share = -(-batch.num_rows // ENVIRONMENT.threads)
        fits = PAST_BYTES // max(1, 2 * layout.size * int(batch.lengths.max()))
        size = min(share, max(1, self._chunk_tokens // groups), max(2, fits))
        chunks: list[_Chunk] = []
        for start in range(0, batch.num_rows, size):
            stop = min(start + size, batch.num_rows)
            positions = np.zeros((stop - start, 2), np.int64)
            positions[:, 0] = np.arange(stop - start)
            # In pairs, for the same reason as in `_padded`.
            repeats = (stop - start) % 2
            scored = slice(start, stop)
            chunks.append(_Chunk(start, stop, 1, positions, scored, repeats=repeats))
        return chunks

    def _padded(self, tokens: int) -> int:
        """Next even number of tokens: attention works in tiles of an even number of rows, and a
        last tile of one row takes the matrix-vector kernel, which rounds differently."""
        return max(tokens, min(tokens + tokens % 2, self.bundle.manifest.model.max_seq))

    def _embed(self, chunk: _Chunk, batch: Batch, rows: npt.NDArray[np.int64], tokens: int) -> None:
        """Run the prologue on the first `tokens` tokens of rows of the batch."""
        ids = batch.input_ids[rows, :tokens]
        if ids.shape[1] < tokens:
            pad = self.bundle.manifest.tokenizer.pad_id
            ids = np.pad(ids, ((0, 0), (0, tokens - ids.shape[1])), constant_values=pad)
        feed = {"input_ids": self._value(ids)} | self._model.prologue.weights
        if "attention_mask" in self._model.prologue.inputs:
            mask = np.arange(tokens) < batch.lengths[rows, None]
            feed["attention_mask"] = self._value(mask.astype(np.int64))
        context = self.bundle.manifest.context
        outputs = run_graph(self._model.prologue.session, ["hidden", *context], feed)
        chunk.hidden = outputs[0]
        chunk.inputs = dict(zip(context, outputs[1:], strict=True))
        for tensor in self.bundle.manifest.graphs.prologue.outputs:
            if tensor.name in chunk.inputs and tensor.shape[:1] == ("rows",):
                chunk.by_row[tensor.name] = chunk.inputs[tensor.name].numpy()

    def _start(
        self,
        chunk: _Chunk,
        batch: Batch,
        params: Params,
        until: int,
        cache: PrefixCache | None,
        scope: Scope,
    ) -> None:
        """Set `chunk.hidden` to the states at the entry of block `until`, one group."""
        rows = np.arange(chunk.start, chunk.stop)
        self._embed(chunk, batch, rows, chunk.tokens)
        first = batch.first_scored[rows] if scope == "answer" else np.zeros_like(rows)
        active = np.arange(chunk.tokens) >= first[:, None]
        chunk.by_row["active"] = active.astype(np.float32)
        chunk.by_row["past_lengths"] = np.zeros(len(rows), np.int32)
        self._feed_rows(chunk)
        if cache is None or not until:
            self._run_prefix(chunk, params, until)
            return
        keys = [int(key) for key in batch.row_keys[rows]]
        kept = cache.read(keys, chunk.tokens)
        if kept is None:
            self._run_prefix(chunk, params, until)
            kept = cache.write(keys, batch.lengths[rows], chunk.hidden.numpy())
        chunk.hidden = self._value(kept)

    def _run_prefix(self, chunk: _Chunk, params: Params, until: int) -> None:
        for index in range(until):
            self._run_block(index, chunk, params, self._one)
            self._leave(index)

    def _start_answers(
        self, chunk: _Chunk, batch: Batch, params: Params, until: int, cache: AnswerCache
    ) -> None:
        """Start from the last tokens at the entry of block `until`, one group."""
        rows = chunk.index
        states, missing = cache.gather(batch.row_keys[rows].tolist(), batch.lengths[rows])
        for part in self._by_tokens(batch.lengths[rows], missing):
            self._read_prompts(batch, rows[part], part, params, until, states, cache)
        chunk.past = states
        chunk.hidden = self._value(states.hidden[:, None].astype(np.float32))
        one = _Chunk(0, 1, 1, chunk.positions, chunk.scored)
        self._embed(one, batch, rows[:1], int(states.lengths.max()) + 1)
        chunk.inputs = one.inputs  # tables by position; the states are those of the cache
        chunk.by_row["active"] = np.ones((chunk.rows, 1), np.float32)
        chunk.by_row["past_lengths"] = states.lengths
        self._feed_rows(chunk)

    def _by_tokens(
        self, lengths: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
    ) -> Iterator[npt.NDArray[np.int64]]:
        """Cut rows into parts of a chunk's tokens."""
        start = 0
        while start < len(rows):
            stop = start + 1
            while stop < len(rows):
                longest = self._padded(int(lengths[rows[start : stop + 1]].max()))
                if (stop + 1 - start) * longest > self._chunk_tokens:
                    break
                stop += 1
            yield rows[start:stop]
            start = stop

    def _read_prompts(
        self,
        batch: Batch,
        rows: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
        params: Params,
        until: int,
        states: AnswerStates,
        cache: AnswerCache,
    ) -> None:
        """Run whole prompts, and put what does not change of them into the cache and `places`."""
        lengths = batch.lengths[rows]
        tokens = self._padded(int(lengths.max()))
        chunk = _Chunk(0, len(rows), tokens, np.empty((0, 2), np.int64), slice(0))
        self._embed(chunk, batch, rows, tokens)
        last = np.arange(tokens) == lengths[:, None] - 1
        chunk.by_row["active"] = last.astype(np.float32)
        chunk.by_row["past_lengths"] = np.zeros(len(rows), np.int32)
        self._feed_rows(chunk)
        for index in range(self.num_blocks):
            if index == until:
                hidden = chunk.hidden.numpy()[np.arange(len(rows)), lengths - 1]
            own = params if index < until else self._frozen  # from there on last tokens are waste
            pair = self._run_block(index, chunk, own, self._one, index >= until)
            self._leave(index)
            if index >= until:
                for half, value in enumerate(pair):  # (R, n, S, D)
                    states.fill(places, index, half, value.numpy())
        for row, (place, key) in enumerate(zip(places, batch.row_keys[rows], strict=True)):
            cache.put(states, int(place), int(key), hidden[row])

    def _feed_rows(self, chunk: _Chunk) -> None:
        """Make the inputs that differ from row to row, once for every group."""
        chunk.nothing.clear()
        for name, value in chunk.by_row.items():
            repeats = (chunk.groups,) + (1,) * (value.ndim - 1)
            chunk.inputs[name] = self._value(np.tile(value, repeats))

    def _spread(self, chunk: _Chunk, groups: int) -> None:
        """Repeat one group G times; per-row inputs likewise."""
        if groups == chunk.groups:
            return
        chunk.groups = groups
        chunk.hidden = self._value(np.tile(chunk.hidden.numpy(), (groups, 1, 1)))
        self._feed_rows(chunk)

    def _run_block(
        self,
        index: int,
        chunk: _Chunk,
        params: Params,
        code: Sequence[Any],
        keep: bool = False,
    ) -> list[Any]:
        """Run a block; returns its keys and values if they are asked for."""
        graph = self._model.blocks[index]
        feed = dict(graph.weights)
        for name in graph.inputs:
            if name == "hidden":
                feed[name] = chunk.hidden
            elif name == "code":
                feed[name] = code[0]
            elif name == "decode":
                feed[name] = code[1]
            else:
                feed[name] = chunk.inputs[name]
        for name, tensor in graph.trainables.items():
            copies = params.copies(tensor, chunk.index)
            _check_copies(tensor, len(copies), chunk.groups, chunk.rows)
            feed[name] = self._value(copies)
        pieces = self._pieces(graph, chunk)
        if len(pieces) > 1:
            kept = run_pieces(graph, feed, pieces, self._value)
        else:
            outputs = [graph.output, *(("key", "value") if keep else ())]
            feed |= self._past(index, chunk)
            chunk.hidden, *kept = run_graph(graph.session, outputs, feed)
        self._watch()
        return list(kept) if keep else []

    def _pieces(self, graph: LoadedGraph, chunk: _Chunk) -> list[slice]:
        """The tokens that go through a block at once: more than one piece where a row is long."""
        if graph.past is None or chunk.past is not None:
            return [slice(0, chunk.tokens)]
        return cut_tokens(chunk.groups * chunk.rows, chunk.tokens, self._chunk_tokens)

    def _past(self, index: int, chunk: _Chunk) -> dict[str, Any]:
        """Earlier keys and values, if the block takes any."""
        shape = self._model.blocks[index].past
        if shape is None:
            return {}
        if chunk.past is not None:
            pair = chunk.past.keys_values(index, chunk.groups)
            return dict(zip(PAST, map(self._value, pair), strict=True))
        if shape not in chunk.nothing:
            heads, width = shape
            nothing = np.empty((chunk.groups * chunk.rows, heads, 0, width), np.float32)
            chunk.nothing[shape] = self._value(nothing)
        return dict.fromkeys(PAST, chunk.nothing[shape])

    def _score_chunk(self, chunk: _Chunk, batch: Batch) -> Float32:
        """(G, T', C) or (G, T') for the positions of a chunk."""
        parts: list[Float32] = []
        for start in range(0, len(chunk.positions), SCORED_POSITIONS):
            own = chunk.positions[start : start + SCORED_POSITIONS]
            first = chunk.scored.start + start
            scores = self._score(chunk, own, batch.targets[first : first + len(own)], batch)
            parts.append(scores.reshape(chunk.groups, len(own), *scores.shape[1:]))
        return np.concatenate(parts, axis=1)

    def _score(
        self,
        chunk: _Chunk,
        positions: npt.NDArray[np.int64],
        targets: npt.NDArray[np.int64],
        batch: Batch,
    ) -> Float32:
        """Scores of every group at positions of its first group, groups outermost."""
        shift = np.zeros((chunk.groups, 1, 2), np.int64)
        shift[:, 0, 0] = np.arange(chunk.groups) * chunk.rows
        places = (positions[None] + shift).reshape(-1, 2)
        wanted = np.tile(targets, chunk.groups)
        count = len(places)
        if count == 1:  # a lone row would take the matrix-vector kernel, which rounds differently
            places, wanted = np.tile(places, (2, 1)), np.tile(wanted, 2)
        feed = {"hidden": chunk.hidden, "positions": self._value(places)}
        graphs = self.bundle.manifest.graphs
        if batch.label_ids is not None:
            feed["label_ids"] = self._value(batch.label_ids)
            scorer = self._model.scorer(graphs.score_labels)
        else:
            feed["targets"] = self._value(wanted)
            scorer = self._model.scorer(graphs.score_tokens)
        feed |= scorer.weights
        scores: Float32 = run_graph(scorer.session, [scorer.output], feed)[0].numpy()
        return scores[:count]


def _check_copies(name: str, copies: int, groups: int, rows: int) -> None:
    """Refuse what a graph would spread over the wrong rows: it only sees that P divides R."""
    if copies not in (1, groups, groups * rows):
        raise UsageError(
            f"'{name}': {copies} copies for {groups} groups of {rows} sequences, expected 1, "
            f"{groups} or {groups * rows}"
        )
