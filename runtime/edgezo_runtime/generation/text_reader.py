"""Reading of texts: their tokens go through the blocks, and keys and values into a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.chunks import Chunk
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.forward import Work
from edgezo_runtime.engine.params import Params
from edgezo_runtime.generation.copy_cache import TextParams
from edgezo_runtime.generation.decode_pass import PromptsPass, TablesPass, Take, TokenPass
from edgezo_runtime.generation.device_cache import DeviceKvCache
from edgezo_runtime.generation.kv_cache import KvCache
from edgezo_runtime.generation.text_stream import TextStream

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

Finish = Literal["end", "stop", "length"]
"""Why a text ended: the model's end token, a stop text, or its greatest length."""


@dataclass(slots=True)
class Text:
    """A text that is being generated.

    Attributes:
        number: its place among the prompts.
        prompt: tokens that it continues from.
        tokens: its tokens so far, without an end token.
        stream: the same as text.
        finish: why it ended; None while it has not.
    """

    number: int
    prompt: tuple[int, ...]
    stream: TextStream
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None


class TextReader:
    """Takes the tokens of texts through the blocks.

    Args:
        engine: the model.
        scope: tokens that the adapters act on; with "answer", from a prompt's last token on.

    Attributes:
        prompt_tokens: tokens of prompts read so far.
    """

    def __init__(self, engine: Engine, scope: Scope) -> None:
        self._engine = engine
        self._scope = scope
        manifest = engine.bundle.manifest
        self._virtual = manifest.scheme.prompt_tokens
        self._pad = manifest.tokenizer.pad_id
        self._tables: dict[int, dict[str, Any]] = {}
        self._positional: bool | None = None
        self.prompt_tokens = 0

    def read_prompts(
        self,
        texts: Sequence[Text],
        params: Params,
        states: KvCache | DeviceKvCache | None,
        take: Take,
    ) -> None:
        """Read texts as a whole: prompts, or, without states, what was generated as well.

        Args:
            texts: of one group.
            params: copies of the trainables, by number of the text.
            states: where keys and values go; None if none are kept.
            take: given the logits of the tokens that follow.
        """
        rows = [(*text.prompt, *text.tokens) for text in texts]
        batch = _batch(rows, self._pad, [len(text.prompt) - 1 for text in texts])
        own = TextParams(params, np.array([text.number for text in texts], np.int64))
        if states is not None:
            states.reserve(self._virtual + batch.seq)

        def make(work: Work) -> PromptsPass:
            return PromptsPass(work, self._scope, states, take)

        cutter = self._engine.cutter
        self._engine.run(batch, own, make, lambda rows: cutter(own.private).chunks(rows, 1))
        self.prompt_tokens += sum(len(text.prompt) for text in texts if not text.tokens)
        if states is None:
            return
        count = len(texts)
        states.lengths[:count] = batch.lengths + self._virtual
        if states.rows > count:
            states.keep(np.array([*range(count), count - 1]))
        self._engine.trim()  # passes of single tokens have other sizes

    def read_rest(
        self,
        text: Text,
        params: Params,
        states: KvCache | DeviceKvCache,
        kept: dict[int, dict[str, Any]],
        take: Take,
    ) -> None:
        """Read the tokens of one prompt that `states` lack, a chunk of them at a time.

        Args:
            text: the only one.
            params: as in `read_prompts`.
            states: of one row; its length says how many tokens it has.
            kept: trainable inputs by block, for all passes over the text.
            take: given the logits of the token that follows the prompt.
        """
        prompt, own = text.prompt, TextParams(params, np.array([text.number], np.int64))
        states.reserve(self._virtual + len(prompt))
        first = int(states.lengths[0]) - self._virtual
        size = self._engine.limits.chunk_tokens
        for start in range(first, len(prompt), size):
            part = prompt[start : start + size]
            last = start + size >= len(prompt)
            places = np.arange(start, start + len(part))
            # as in the pass over a whole prompt
            active = places >= (len(prompt) - 1 if self._scope == "answer" else 0)
            make = partial(
                self._token_pass,
                states=states,
                kept=kept,
                take=take if last else None,
                active=active.astype(np.float32),
            )
            self._engine.run(_batch([part], self._pad), own, make, _one_chunk, continuing=True)
            states.lengths = states.lengths + len(part)
            self.prompt_tokens += len(part)
        self._engine.trim()  # passes of single tokens have other sizes

    def read_tokens(
        self,
        texts: Sequence[Text],
        params: Params,
        states: KvCache | DeviceKvCache,
        kept: dict[int, dict[str, Any]],
        take: Take,
    ) -> None:
        """Read the last token of every text; the padding row reads that of the last text."""
        texts = [*texts, *[texts[-1]] * (states.rows - len(texts))]
        last = [(text.tokens[-1],) for text in texts]
        own = TextParams(params, np.array([text.number for text in texts], np.int64))
        tokens = int(states.lengths.max()) + 1
        if not states.has_room(tokens):
            self._engine.trim()  # sizes change, and the arena would keep those of every room
        states.reserve(tokens)
        make = partial(self._token_pass, states=states, kept=kept, take=take)
        self._engine.run(_batch(last, self._pad), own, make, self._cut_tokens, continuing=True)
        states.lengths = states.lengths + 1

    def _token_pass(
        self,
        work: Work,
        states: KvCache | DeviceKvCache,
        kept: dict[int, dict[str, Any]],
        take: Take | None,
        active: Float32 | None = None,
    ) -> TokenPass:
        if self._positional is None:
            self._positional = TablesPass(work).positional()
        if states.room not in self._tables:
            self._tables = {states.room: TablesPass(work).tables(states.room + 1)}
        tables = self._tables[states.room]
        return TokenPass(work, states, tables, self._positional, kept, take, active)

    def _cut_tokens(self, batch: Batch) -> list[Chunk]:
        """Divide rows among the workers, in pairs: a lone row takes other kernels."""
        limits, rows = self._engine.limits, batch.num_rows
        share = -(-rows // limits.workers)
        share += share % 2
        size = max(2, min(share, limits.chunk_tokens // 2 * 2))
        parts = [np.arange(start, min(start + size, rows)) for start in range(0, rows, size)]
        nothing = np.empty((0, 2), np.int64)
        return [Chunk(part, 1, nothing, slice(0)) for part in parts]


def _one_chunk(batch: Batch) -> list[Chunk]:
    """All tokens of the only row."""
    return [Chunk(np.arange(1), batch.seq, np.empty((0, 2), np.int64), slice(0))]


def _batch(
    rows: Sequence[Sequence[int]], pad_id: int, scored: Sequence[int] | None = None
) -> Batch:
    """Make a batch of rows of tokens.

    Args:
        rows: tokens.
        pad_id: the token of padding.
        scored: (R,) the first token of each row that adapters of answers act on; None: the last.
    """
    lengths = np.array([len(row) for row in rows], np.int64)
    ids = np.full((len(rows), int(lengths.max())), pad_id, np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    numbers = np.arange(len(rows))
    return Batch(
        kind="completion",
        example_ids=numbers,
        input_ids=ids,
        lengths=lengths,
        positions=np.stack([numbers, lengths - 1 if scored is None else scored], axis=1),
        targets=np.zeros(len(rows), np.int64),
        label_ids=None,
        row_example=numbers,
        labels=np.full(len(rows), -1, np.int64),
    )
