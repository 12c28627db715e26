"""Forward passes over the blocks of a bundle, many perturbed copies at a time.

A pass evaluates G groups (probes) of the same B sequences, R = G * B rows, row g * B + b. The rows
are cut into chunks of sequences; all groups of a sequence stay in one chunk, because the code mixes
them. Blocks are the outer loop, so a block's weights are read once a pass. Up to the first
perturbed block the groups are equal, and the pass runs each sequence once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle import Bundle
from edgezo_runtime.errors import UsageError
from edgezo_runtime.manifest import GraphInfo
from edgezo_runtime.sessions import ENVIRONMENT, import_onnxruntime

if TYPE_CHECKING:
    import onnxruntime

    from edgezo_runtime.batches import Batch
    from edgezo_runtime.prefix_cache import PrefixCache

Float32 = npt.NDArray[np.float32]

CHUNK_TOKENS = 512
"""Tokens of a chunk, all groups counted: large enough for the matrix kernels, small enough that a
block's activations stay in the cores' caches."""

SCORED_POSITIONS = 256
"""Positions the token scorer takes at once; each holds a chunk of the vocabulary in float32."""


@dataclass(slots=True)
class _Chunk:
    """Sequences start..stop of a batch on their way through the blocks."""

    start: int
    stop: int
    groups: int
    hidden: Any  # OrtValue (groups * (stop - start), S, H) float32
    context: dict[str, Any]
    tokens: int
    positions: npt.NDArray[np.int64]  # (T', 2), rows counted from `start`
    first_position: int


class Engine:
    """Runs a bundle.

    Args:
        bundle: opened bundle.
        threads: compute threads of the process's pool; None takes one a core.
        arena_bytes: hard limit of the process's arena, None for none.
        chunk_tokens: see `CHUNK_TOKENS`. Results do not depend on it.
    Raises:
        BundleError: a graph cannot be loaded.
        MissingExtraError: onnxruntime is not installed.
    Memory:
        The weights are mapped files. The arena holds the activations of one chunk in one block,
        and the hidden states (R, S, H) float32 of the pass.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        arena_bytes: int | None = None,
        chunk_tokens: int = CHUNK_TOKENS,
    ) -> None:
        if chunk_tokens < 1:
            raise UsageError(f"chunk_tokens {chunk_tokens}: must be 1 or more")
        self.bundle = bundle
        self._chunk_tokens = chunk_tokens
        ENVIRONMENT.prepare(threads, arena_bytes)
        self._ort = import_onnxruntime()
        graphs = bundle.manifest.graphs
        self._prologue = ENVIRONMENT.open(bundle, graphs.prologue.file)
        self._blocks = [ENVIRONMENT.open(bundle, graph.file) for graph in graphs.blocks]
        self._scorers: dict[str, onnxruntime.InferenceSession] = {}

    @property
    def num_blocks(self) -> int:
        """Blocks of the model."""
        return len(self._blocks)

    def score(
        self,
        batch: Batch,
        params: Mapping[str, Float32],
        code: tuple[Float32, Float32] | None = None,
        *,
        first_active: int = 0,
        cache: PrefixCache | None = None,
        cache_block: int = 0,
    ) -> Float32:
        """Evaluate G groups of a batch.

        Args:
            batch: B sequences.
            params: every trainable input by name, (P, *shape) with P = 1 (shared by all rows),
                G (one a group) or G * B (one a row). Looked up when its block runs, so a mapping
                may make them on demand.
            code: (code, decode), each (G, G) float32; None means one group.
            first_active: blocks before this one have P = 1 throughout and are run once for all
                groups.
            cache: hidden states at the entry of `cache_block`, kept between passes; the blocks
                before it must be the same in every pass.
            cache_block: at most `first_active`.
        Returns:
            Label logits (G, B, C) when the batch has label words, else log-probabilities of its
            targets (G, T), float32. A row's result does not depend on the other rows.
        """
        matrices = code if code is not None else (_ONE, _ONE)
        groups = int(matrices[0].shape[0])
        first_active = min(first_active, self.num_blocks)
        chunks = self._chunks(batch, groups)
        for chunk in chunks:
            entry = cache_block if cache is not None else first_active
            self._start(chunk, batch, params, entry, cache)
            for index in range(entry, first_active):
                self._run_chunk(index, chunk, params, (_ONE, _ONE), batch.num_rows)
            self._spread(chunk, groups)
        for index in range(first_active, self.num_blocks):
            self._run_block(index, chunks, params, matrices, batch.num_rows)
        return self._finish(batch, chunks, groups)

    def hidden(
        self, batch: Batch, params: Mapping[str, Float32], until: int
    ) -> list[tuple[slice, Float32]]:
        """Hidden states at the entry of block `until`, by slices of the batch's rows."""
        chunks = self._chunks(batch, 1)
        for chunk in chunks:
            self._start(chunk, batch, params, until, None)
        return [(slice(chunk.start, chunk.stop), chunk.hidden.numpy()) for chunk in chunks]

    # --- parts of a pass ---

    def _chunks(self, batch: Batch, groups: int) -> list[_Chunk]:
        """Cut a batch; every chunk is padded to its own longest sequence only."""
        chunks: list[_Chunk] = []
        rows = batch.positions[:, 0]
        start = 0
        while start < batch.num_rows:
            stop, longest = start, 2  # two tokens at least: a single row takes another kernel
            while stop < batch.num_rows:
                longer = max(longest, int(batch.lengths[stop]))
                if stop > start and groups * (stop + 1 - start) * longer > self._chunk_tokens:
                    break
                stop, longest = stop + 1, longer
            first, last = np.searchsorted(rows, [start, stop])
            positions = batch.positions[first:last] - np.array([start, 0])
            chunks.append(_Chunk(start, stop, 1, None, {}, longest, positions, int(first)))
            start = stop
        return chunks

    def _start(
        self,
        chunk: _Chunk,
        batch: Batch,
        params: Mapping[str, Float32],
        until: int,
        cache: PrefixCache | None,
    ) -> None:
        """Set `chunk.hidden` to the states at the entry of block `until`, one group."""
        ids = batch.input_ids[chunk.start : chunk.stop, : chunk.tokens]
        lengths = batch.lengths[chunk.start : chunk.stop]
        if ids.shape[1] < chunk.tokens:
            pad = self.bundle.manifest.tokenizer.pad_id
            ids = np.pad(ids, ((0, 0), (0, chunk.tokens - ids.shape[1])), constant_values=pad)
        feed = {"input_ids": self._value(ids)}
        names = {tensor.name for tensor in self.bundle.manifest.graphs.prologue.inputs}
        if "attention_mask" in names:
            mask = np.arange(chunk.tokens) < lengths[:, None]
            feed["attention_mask"] = self._value(mask.astype(np.int64))
        context = self.bundle.manifest.context
        outputs = self._prologue.run_with_ort_values(["hidden", *context], feed)
        chunk.hidden = outputs[0]
        chunk.context = dict(zip(context, outputs[1:], strict=True))
        keys = None
        if cache is not None and until:
            keys = [int(key) for key in batch.row_keys[chunk.start : chunk.stop]]
            kept = cache.read(keys, lengths, chunk.tokens)
            if kept is not None:
                chunk.hidden = self._value(kept)
                return
        for index in range(until):
            self._run_chunk(index, chunk, params, (_ONE, _ONE), batch.num_rows)
        if cache is not None and keys is not None:
            states = cache.write(keys, lengths, chunk.hidden.numpy())
            chunk.hidden = self._value(states)

    def _spread(self, chunk: _Chunk, groups: int) -> None:
        """Repeat one group G times; per-row context likewise."""
        if groups == 1:
            return
        chunk.groups = groups
        chunk.hidden = self._value(np.tile(chunk.hidden.numpy(), (groups, 1, 1)))
        for tensor in self.bundle.manifest.graphs.prologue.outputs:
            if tensor.name in chunk.context and tensor.shape[:1] == ("rows",):
                value = chunk.context[tensor.name].numpy()
                repeats = (groups,) + (1,) * (value.ndim - 1)
                chunk.context[tensor.name] = self._value(np.tile(value, repeats))

    def _run_block(
        self,
        index: int,
        chunks: Sequence[_Chunk],
        params: Mapping[str, Float32],
        code: tuple[Float32, Float32],
        rows: int,
    ) -> None:
        own = {name: params[name] for name in self._graph(index).trainables}
        for chunk in chunks:
            self._run_chunk(index, chunk, own, code, rows)

    def _run_chunk(
        self,
        index: int,
        chunk: _Chunk,
        params: Mapping[str, Float32],
        code: tuple[Float32, Float32],
        rows: int,
    ) -> None:
        graph = self._graph(index)
        feed: dict[str, Any] = {}
        for tensor in graph.inputs:
            name = tensor.name
            if name == "hidden":
                feed[name] = chunk.hidden
            elif name == "code":
                feed[name] = self._value(code[0])
            elif name == "decode":
                feed[name] = self._value(code[1])
            elif name in chunk.context:
                feed[name] = chunk.context[name]
            else:
                feed[name] = self._value(_copies(params[name], chunk, rows))
        chunk.hidden = self._blocks[index].run_with_ort_values(["hidden_out"], feed)[0]

    def _finish(self, batch: Batch, chunks: Sequence[_Chunk], groups: int) -> Float32:
        count = len(batch.positions)
        label_ids = batch.label_ids
        if label_ids is not None:
            result = np.empty((groups, count, label_ids.size), np.float32)
        else:
            result = np.empty((groups, count), np.float32)
        for chunk in chunks:
            for start in range(0, len(chunk.positions), SCORED_POSITIONS):
                own = chunk.positions[start : start + SCORED_POSITIONS]
                first = chunk.first_position + start
                part = slice(first, first + len(own))
                scores = self._score(chunk, own, batch.targets[part], label_ids)
                result[:, part] = scores.reshape(groups, len(own), *result.shape[2:])
            chunk.hidden = None
        return result

    def _score(
        self,
        chunk: _Chunk,
        positions: npt.NDArray[np.int64],
        targets: npt.NDArray[np.int64],
        label_ids: npt.NDArray[np.int64] | None,
    ) -> Float32:
        """Scores of every group at positions of its first group, groups outermost."""
        shift = np.zeros((chunk.groups, 1, 2), np.int64)
        shift[:, 0, 0] = np.arange(chunk.groups) * (chunk.stop - chunk.start)
        places = (positions[None] + shift).reshape(-1, 2)
        wanted = np.tile(targets, chunk.groups)
        count = len(places)
        if count == 1:  # a lone row would take the matrix-vector kernel, which rounds differently
            places, wanted = np.tile(places, (2, 1)), np.tile(wanted, 2)
        feed = {"hidden": chunk.hidden, "positions": self._value(places)}
        graphs = self.bundle.manifest.graphs
        if label_ids is not None:
            feed["label_ids"] = self._value(label_ids)
            session = self._scorer(graphs.score_labels)
        else:
            feed["targets"] = self._value(wanted)
            session = self._scorer(graphs.score_tokens)
        output = session.get_outputs()[0].name
        scores: Float32 = session.run_with_ort_values([output], feed)[0].numpy()
        return scores[:count]

    # --- small helpers ---

    def _graph(self, index: int) -> GraphInfo:
        return self.bundle.manifest.graphs.blocks[index]

    def _scorer(self, graph: GraphInfo) -> onnxruntime.InferenceSession:
        if graph.file not in self._scorers:
            self._scorers[graph.file] = ENVIRONMENT.open(self.bundle, graph.file)
        return self._scorers[graph.file]

    def _value(self, array: npt.NDArray[Any]) -> Any:
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


_ONE = np.ones((1, 1), np.float32)


def _copies(value: Float32, chunk: _Chunk, rows: int) -> Float32:
    """The copies a chunk needs: all of them, unless every row has its own."""
    copies = value.shape[0]
    if copies in (1, chunk.groups):
        return value if chunk.groups > 1 or copies == 1 else value[:1]
    if copies != chunk.groups * rows:
        raise UsageError(
            f"a trainable has {copies} copies for {chunk.groups} groups of {rows} rows; "
            f"1, {chunk.groups} or {chunk.groups * rows} are possible"
        )
    by_group = value.reshape(chunk.groups, rows, *value.shape[1:])
    own = by_group[:, chunk.start : chunk.stop]
    return np.ascontiguousarray(own.reshape(-1, *value.shape[1:]))
