"""Passes that generate: one over prompts, which caches keys and values, then one per token.

What a kept text (`kept_text.py`) lacks of a prompt is read by passes over several tokens of a row.

Each ends with the logits of the next token of every row, from which a sampler chooses the token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest_types import SLOTS
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.chunks import Chunk
from edgezo_runtime.engine.forward import BlockInputs, Forward, WholePass, Work
from edgezo_runtime.engine.params import Params
from edgezo_runtime.engine.sessions import require_shape, run_graph
from edgezo_runtime.errors import UsageError
from edgezo_runtime.generation.device_cache import DeviceKvCache
from edgezo_runtime.generation.kv_cache import KvCache

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

LOGIT_ROWS = 8
"""Rows whose logits are in memory at once."""

Take = Callable[[Int64, Float32], None]
"""Given rows of the batch and the logits of their next tokens (rows, V), from several threads."""


@dataclass(frozen=True, slots=True)
class PastRows:
    """Neighbouring rows of texts, as the past of a chunk."""

    states: KvCache | DeviceKvCache
    rows: slice

    def keys_values(self, block: int, groups: int) -> tuple[Any, ...]:
        """Keys and values (R', n, room, D); there is one group."""
        assert groups == 1
        return self.states.of(block, self.rows)


class PromptsPass(WholePass):
    """Reads whole prompts and caches their keys and values.

    Args:
        work: what is read; of every prompt the last token is scored.
        scope: tokens that the adapters act on.
        states: where keys and values go, with room for them; None if none are kept.
        take: given the logits of the tokens that follow.
    """

    def __init__(
        self, work: Work, scope: Scope, states: KvCache | DeviceKvCache | None, take: Take
    ) -> None:
        super().__init__(work, None, 0, None, 0, scope)
        self._states = states
        self._take = take

    def enter(self, index: int, chunk: Chunk) -> BlockInputs:
        """Ask the block for keys and values."""
        return BlockInputs(self._work.params, self._one, keeps_past=self._states is not None)

    def leave(self, index: int, chunk: Chunk, past: Sequence[Any]) -> None:
        """Cache the keys and values of the prompts."""
        if isinstance(self._states, DeviceKvCache):
            self._states.put(index, chunk.index, past)
        elif self._states is not None:
            made = list(map(self._model.array, past))
            self._states.put(index, chunk.index, np.zeros(chunk.rows, np.int64), made)

    def end(self, chunk: Chunk) -> None:
        """Hand out logits."""
        _hand_out(self._work, chunk, self.batch.lengths[chunk.index] - 1, self._take)


class TokenPass(Forward):
    """Reads one more token per row, or several of a single row, behind those that are cached.

    Args:
        work: what is read; its batch has S tokens per row.
        states: earlier keys and values, with room for S more tokens; its lengths stay as they are.
        context: what the blocks take by position, for one token more than there is room for.
        positional: do hidden states depend on positions before the first block?
        kept: trainable inputs by block, which later tokens use again where all rows share them.
        take: given the logits of the tokens that follow; None if nobody wants them.
        active: (S,) 1 for tokens that adapters act on; None: all.
    """

    def __init__(
        self,
        work: Work,
        states: KvCache | DeviceKvCache,
        context: dict[str, Any],
        positional: bool,
        kept: dict[int, dict[str, Any]],
        take: Take | None,
        active: Float32 | None = None,
    ) -> None:
        super().__init__(work)
        self._active = active
        self._states = states
        self._context = context
        self._positional = positional
        self._kept = kept
        self._take = take

    def start(self, chunk: Chunk) -> None:
        """Embed the tokens; adapters act on them."""
        rows = chunk.index
        chunk.past = PastRows(self._states, slice(int(rows[0]), int(rows[-1]) + 1))
        chunk.hidden = self._embedded(rows)
        chunk.inputs = dict(self._context)
        shape = chunk.rows, chunk.tokens
        active = np.ones(chunk.tokens, np.float32) if self._active is None else self._active
        chunk.by_row["active"] = np.tile(active, (chunk.rows, 1))
        chunk.by_row["past_lengths"] = self._states.lengths[rows].astype(np.int32)
        virtual = self._manifest.scheme.prompt_tokens
        if virtual:
            chunk.by_row[SLOTS] = np.full(shape, virtual, np.int64)
        self._feed_rows(chunk)
        chunk.entry = 0

    def enter(self, index: int, chunk: Chunk) -> BlockInputs:
        """Ask the block for keys and values."""
        return BlockInputs(self._work.params, self._one, keeps_past=True)

    def leave(self, index: int, chunk: Chunk, past: Sequence[Any]) -> None:
        """Cache the keys and values of the tokens."""
        rows = slice(int(chunk.index[0]), int(chunk.index[-1]) + 1)
        made = past if self._states.on_device else list(map(self._model.array, past))
        self._states.put_tokens(index, rows, made, chunk.tokens)

    def past_sizes(self, chunk: Chunk, before: int) -> tuple[int, ...]:
        """Behind earlier tokens, several new ones take the place of room, where there is any."""
        return before + chunk.tokens, before

    def _trainables(self, index: int, chunk: Chunk, params: Params) -> dict[str, Any]:
        """The inputs of the token before, unless every row has its own."""
        if params.private:
            return super()._trainables(index, chunk, params)
        if index not in self._kept:
            self._kept[index] = super()._trainables(index, chunk, params)
        return self._kept[index]

    def end(self, chunk: Chunk) -> None:
        """Hand out logits."""
        if self._take is None:
            chunk.release()
        else:
            last = np.full(chunk.rows, chunk.tokens - 1, np.int64)
            _hand_out(self._work, chunk, last, self._take)

    def wave_bytes(self, chunk: Chunk) -> int:
        """Bytes that a block makes from a row's keys and values."""
        heads, width = self._model.blocks[0].past or (0, 0)
        return 8 * heads * width * (self._states.room + chunk.tokens)

    def _embedded(self, rows: Int64) -> Any:
        """Hidden states (R', S, H) of the new tokens at their places.

        Where the states depend on the place, the prologue, which counts places from 0, reads a row
        that ends at the place: look-ups, no matrix products.
        """
        ids, one = self.batch.input_ids[rows], np.ones(len(rows), np.int64)
        count = ids.shape[1]
        if not self._positional:
            return self._prologue(ids, one * count)[0]
        hidden: list[Float32] = []
        for own, place in zip(ids, self._states.lengths[rows], strict=True):
            line = np.full((1, int(place) + count), self._manifest.tokenizer.pad_id, np.int64)
            line[0, -count:] = own
            made, _ = self._prologue(line, one[:1] * line.shape[1])
            hidden.append(self._model.array(made)[:, -count:].copy())  # no view keeps `made`
        return self._model.value(np.concatenate(hidden))


class TablesPass(Forward):
    """Makes what blocks take by position, and tests whether hidden states depend on positions."""

    def tables(self, tokens: int) -> dict[str, Any]:
        """Make the context for sequences of `tokens`; OrtValues."""
        if not self._manifest.context:
            return {}
        ids = np.full((1, tokens), self._manifest.tokenizer.pad_id, np.int64)
        return self._prologue(ids, np.array([tokens]))[1]

    def positional(self) -> bool:
        """Do two equal tokens have different states before the first block?"""
        ids = np.full((1, 2), self._manifest.tokenizer.pad_id, np.int64)
        first, second = self._model.array(self._prologue(ids, np.array([2]))[0])[0]
        return not np.array_equal(first, second)


def _hand_out(work: Work, chunk: Chunk, columns: Int64, take: Take) -> None:
    """Make the logits of the next tokens of a chunk, some rows at a time."""
    manifest, model = work.model.bundle.manifest, work.model
    graph = manifest.graphs.logits
    if graph is None:
        raise UsageError("the bundle has no graph of logits")
    head = model.scorer(graph)
    rows = np.arange(chunk.rows)
    for start in range(0, chunk.rows, LOGIT_ROWS):
        own = slice(start, start + LOGIT_ROWS)
        places = np.stack([rows[own], columns[own]], axis=1)
        count = len(places)
        if count == 1:  # a lone row would take the matrix-vector kernel, which rounds differently
            places = np.tile(places, (2, 1))
        feed = {"hidden": chunk.hidden, "positions": model.value(places), **head.weights}
        (value,) = run_graph(head.session, [head.output], feed)
        require_shape(value, (len(places), manifest.model.vocab_size), "logits")
        take(chunk.index[own], model.array(value)[:count])
    chunk.release()
