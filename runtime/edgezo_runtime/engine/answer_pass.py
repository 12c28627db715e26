"""Passes that evaluate last tokens on top of the cached keys and values of their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from edgezo_runtime.engine.answer_states import AnswerStates, KeyValueLayout
from edgezo_runtime.engine.chunks import Chunk, Cutter
from edgezo_runtime.engine.forward import (
    BlockInputs,
    FirstActive,
    Float32,
    Forward,
    Int64,
    ScoringPass,
    Work,
)
from edgezo_runtime.engine.params import SharedParams
from edgezo_runtime.engine.rotary_sides import RotarySides
from edgezo_runtime.errors import UsageError


class PromptCache(Protocol):
    """`AnswerStates` of prompts, cached between passes."""

    layout: KeyValueLayout

    def gather(self, keys: Sequence[int], lengths: Int64) -> tuple[AnswerStates, Int64]:
        """States of prompts of these lengths, and the rows that are missing in them."""

    def put(self, states: AnswerStates, row: int, key: int, hidden: Float32) -> None:
        """Complete a row by its last token's state (H,), and cache the row."""


class AnswerPass(ScoringPass):
    """Evaluates the last token of every sequence on top of cached keys and values.

    Args:
        work: what is evaluated; the last token alone of every sequence is scored.
        code: (code, decode), each (G, G) float32; None means one group.
        first_active: blocks before this one are run once for all groups.
        cache: states of the prompts.
        entry: the block where the cached states enter.
    """

    def __init__(
        self,
        work: Work,
        code: tuple[Float32, Float32] | None,
        first_active: FirstActive,
        cache: PromptCache,
        entry: int,
    ) -> None:
        super().__init__(work, code, first_active)
        self._cache = cache
        self._entry = entry
        self._sides = RotarySides.of(self._manifest)

    def wave_bytes(self, chunk: Chunk) -> int:
        """Bytes of the keys and values of a sequence."""
        return 2 * self._cache.layout.size * int(self.batch.lengths.max())

    def before(self, wave: Sequence[Chunk], cutter: Cutter) -> tuple[Forward, list[Chunk]] | None:
        """Look the prompts up; those that are missing have to be read first."""
        parts: list[Chunk] = []
        for chunk in wave:
            rows = chunk.index
            keys, lengths = self.batch.row_keys[rows].tolist(), self.batch.lengths[rows]
            chunk.past, missing = self._cache.gather(keys, lengths)
            beyond = bool(self._sides.beyond(self.batch)[rows[0]])
            for places in cutter.prompts(lengths, missing, beyond):
                tokens = cutter.padded(int(lengths[places].max()), beyond)
                part = Chunk(rows[places], tokens, np.empty((0, 2), np.int64), slice(0))
                part.target = chunk.past, places
                parts.append(part)
        return (PromptPass(self._work, self._cache, self._entry), parts) if parts else None

    def start(self, chunk: Chunk) -> None:
        """Start from the last tokens at the block where they enter, one group."""
        states = chunk.past
        if not isinstance(states, AnswerStates):
            raise UsageError("a chunk of last tokens starts without its prompts")
        chunk.hidden = self._model.value(states.hidden[:, None].astype(np.float32))
        one = Chunk(chunk.index[:1], 1, chunk.positions, chunk.scored)
        beyond = bool(self._sides.beyond(self.batch)[chunk.index[0]])
        longest = self._sides.within(int(states.lengths.max()) + 1, beyond)
        self._take_prologue(one, self._prologue(*self._first_tokens(one, longest)))
        chunk.inputs = one.inputs  # tables by position; the states are those of the cache
        chunk.by_row["active"] = np.ones((chunk.rows, 1), np.float32)
        chunk.by_row["past_lengths"] = states.lengths
        self._feed_rows(chunk)
        chunk.entry = self._entry


class PromptPass(Forward):
    """Runs whole prompts, and caches the states that do not change.

    Args:
        work: what is evaluated; its batch holds the prompts.
        cache: where the states go.
        entry: the block from which on keys and values are cached, and last tokens may change.
    """

    def __init__(
        self,
        work: Work,
        cache: PromptCache,
        entry: int,
    ) -> None:
        super().__init__(work)
        self._cache = cache
        self._entry = entry
        self._frozen = SharedParams(work.model.bundle.trainables())

    def start(self, chunk: Chunk) -> None:
        """Embed a chunk; the adapters act on last tokens."""
        self._take_prologue(chunk, self._prologue(*self._first_tokens(chunk, chunk.tokens)))
        last = np.arange(chunk.tokens) == self.batch.lengths[chunk.index, None] - 1
        chunk.by_row["active"] = last.astype(np.float32)
        chunk.by_row["past_lengths"] = np.zeros(chunk.rows, np.int32)
        self._feed_rows(chunk)

    def enter(self, index: int, chunk: Chunk) -> BlockInputs:
        """Keep the last tokens' states at the entry block; from there on, keep keys and values."""
        if index == self._entry:
            last = self.batch.lengths[chunk.index] - 1
            chunk.kept = self._model.array(chunk.hidden)[np.arange(chunk.rows), last]
        keeps = index >= self._entry
        # From the entry on, nothing here uses the last tokens, which alone depend on what trains.
        return BlockInputs(self._frozen if keeps else self._work.params, self._one, keeps)

    def leave(self, index: int, chunk: Chunk, past: Sequence[Any]) -> None:
        """Round keys and values (R, n, S, D) into the states."""
        states, places = chunk.target
        for half, values in enumerate(past):
            states.fill(places, index, half, self._model.array(values))

    def end(self, chunk: Chunk) -> None:
        """Put the states into the cache."""
        states, places = chunk.target
        keys = self.batch.row_keys[chunk.index]
        for row, (place, key) in enumerate(zip(places, keys, strict=True)):
            self._cache.put(states, int(place), int(key), chunk.kept[row])
        chunk.release()
