"""How a batch is cut into chunks, which go through the blocks together, and waves of chunks.

All groups of a sequence stay in one chunk, because the code mixes them. Results do not depend on
where a batch is cut.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest import Manifest, copy_bytes
from edgezo_runtime.data.batches import Batch
from edgezo_runtime.engine.answer_states import KeyValueLayout
from edgezo_runtime.engine.rotary_sides import ONE_SIDE, RotarySides
from edgezo_runtime.errors import UsageError

Int64 = npt.NDArray[np.int64]

CHUNK_TOKENS = 256
"""Tokens of a chunk, all groups counted: large enough for the matrix kernels, small enough that a
block's activations stay in a core's cache."""

SMALLEST_CHUNK_TOKENS = 16
"""Chunks are never made smaller than this for lack of memory."""

PAST_BYTES = 32 << 20
"""Bytes of earlier keys and values, float16, that a chunk of last tokens holds."""

WAVE_BYTES = 48 << 20
"""Bytes that the chunks of a wave hold between two streamed blocks."""

FETCH_BYTES = 16 << 20
"""Bytes of neighbouring streamed blocks that are resident at once: chunks wait for each other less
often than after every block."""

COPY_BYTES = 64 << 20
"""Bytes of copies of a block's trainables that a chunk holds where every sequence has its own; one
sequence may have more."""

_WORTH_A_WORKER = 64
"""Tokens below which the kernels lose more than an idle worker costs."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a batch is in memory at once.

    Attributes:
        workers: chunks that are computed at the same time.
        chunk_tokens: tokens of a chunk, all groups counted; one sequence may have more.
        past_bytes: keys and values, float16, that a chunk of last tokens holds.
        wave_bytes: hidden states, keys and values of the chunks that go through streamed blocks
            together; as many chunks as there are workers may have more.
        fetch_bytes: weights of neighbouring streamed blocks that are resident at once; one block
            may have more.
    """

    workers: int
    chunk_tokens: int = CHUNK_TOKENS
    past_bytes: int = PAST_BYTES
    wave_bytes: int = WAVE_BYTES
    fetch_bytes: int = FETCH_BYTES

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            UsageError: one is below 1.
        """
        for field_ in dataclasses.fields(self):
            value = getattr(self, field_.name)
            if value < 1:
                raise UsageError(f"{field_.name} {value}: must be 1 or more")

    def smaller(self) -> Limits | None:
        """Halve what is in memory at once; None if chunks are as small as they can be."""
        if self.chunk_tokens <= SMALLEST_CHUNK_TOKENS:
            return None
        return dataclasses.replace(
            self,
            chunk_tokens=max(SMALLEST_CHUNK_TOKENS, self.chunk_tokens // 2),
            past_bytes=max(1, self.past_bytes // 2),
            wave_bytes=max(1, self.wave_bytes // 2),
            fetch_bytes=max(1, self.fetch_bytes // 2),
        )

    def stretches(
        self, sizes: Sequence[int], streamed: Set[int], first: int = 0
    ) -> Iterator[range]:
        """Neighbouring blocks that chunks go through without waiting for each other.

        Args:
            sizes: bytes of every block.
            streamed: those that are fetched and dropped.
            first: the first block of interest.
        """
        start, held = first, 0
        for index in range(first, len(sizes)):
            own = sizes[index] if index in streamed else 0
            if held and own and held + own > self.fetch_bytes:
                yield range(start, index)
                start, held = index, 0
            held += own
        if start < len(sizes):
            yield range(start, len(sizes))


class Past(Protocol):
    """Earlier keys and values of a chunk's sequences."""

    def keys_values(self, block: int, groups: int) -> Iterable[Any]:
        """Keys and values (groups * R', n, P, D) of a block, groups outermost.

        They are arrays in float32, or values of the device.
        """


@dataclass(slots=True, eq=False)
class Chunk:
    """Sequences of a batch on their way through the blocks.

    Attributes:
        index: (R',) rows of the batch that a group is made of; a row may repeat.
        tokens: S, tokens of each, padding counted.
        positions: (T', 2) scored positions, rows counted within the chunk.
        scored: which of the batch's positions they are.
        groups: how many times the sequences are repeated in `hidden`.
        entry: first block the chunk goes through.
        hidden: OrtValue (groups * R', S, H) float32.
        inputs: what all blocks take.
        by_row: those of one group that differ from row to row.
        past: earlier keys and values.
        nothing: a past of no tokens, by heads and width.
        target: where keys and values of a prompt go, and in which of its rows.
        kept: states that are wanted later: (R', H) of last tokens at the entry of the first block
            that trains, or (R', S, H) at the entry of every block that the chunk goes back through.
        grad: (R', S, H), an OrtValue: gradient at the result of the block to go back through.
        scores: (groups, T', C) or (groups, T').
    """

    index: Int64
    tokens: int
    positions: Int64
    scored: slice
    groups: int = 1
    entry: int = 0
    hidden: Any = None
    inputs: dict[str, Any] = field(default_factory=dict)
    by_row: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    past: Past | None = None
    nothing: dict[tuple[int, int], Any] = field(default_factory=dict)
    target: Any = None
    kept: Any = None
    grad: Any = None
    scores: Any = None

    @property
    def rows(self) -> int:
        """R', sequences of a group."""
        return len(self.index)

    def release(self) -> None:
        """Release all but the scores: a chunk that is done waits for the others."""
        self.hidden = self.past = self.target = self.kept = self.grad = None
        self.inputs.clear()
        self.by_row.clear()
        self.nothing.clear()


@dataclass(frozen=True, slots=True)
class Cutter:
    """Cuts batches.

    Attributes:
        limits: how large the parts are.
        max_seq: tokens of the longest sequence the model takes.
        hidden_size: H.
        copy_bytes: trainables of a block, where every sequence has copies of its own; else 0.
        sides: rows that no chunk may mix.
    """

    limits: Limits
    max_seq: int
    hidden_size: int
    copy_bytes: int = 0
    sides: RotarySides = ONE_SIDE

    @classmethod
    def of(cls, manifest: Manifest, limits: Limits, private: bool) -> Cutter:
        """Make the cutter of a model, whose virtual tokens are in front of every sequence.

        Args:
            manifest: of the bundle.
            limits: how large the parts are.
            private: has every sequence its own copies of the trainables?
        """
        longest = manifest.model.max_seq + manifest.scheme.prompt_tokens
        own = copy_bytes(manifest) if private else 0
        sides = RotarySides.of(manifest)
        return cls(limits, longest, manifest.model.hidden_size, own, sides)

    def padded(self, tokens: int, beyond: bool = False) -> int:
        """Round a number of tokens up to an even one.

        Attention works in tiles of an even number of rows. A last tile of one row would take the
        matrix-vector kernel, which rounds differently.

        Args:
            tokens: of the longest row.
            beyond: the side of the rows.
        """
        tokens = self.sides.within(tokens, beyond)
        even = self.sides.within(tokens + tokens % 2, beyond)
        return max(tokens, min(even, self.max_seq))

    def chunks(self, batch: Batch, groups: int) -> list[Chunk]:
        """Cut a batch; every chunk is padded to its own longest sequence only."""
        total = groups * int(batch.lengths.sum())
        fair = -(-total // (2 * self.limits.workers))  # two per worker, so that none waits for long
        limit = min(self.limits.chunk_tokens, max(fair, _WORTH_A_WORKER))
        most = self._most_copies(groups)
        chunks: list[Chunk] = []
        rows, beyond = batch.positions[:, 0], self.sides.beyond(batch)
        start = 0
        while start < batch.num_rows:
            stop, longest = start, 0
            while stop < batch.num_rows:
                longer = max(longest, self.padded(int(batch.lengths[stop]), bool(beyond[stop])))
                count = stop + 1 - start
                full = groups * count * longer > limit or count > most
                if stop > start and (full or beyond[stop] != beyond[start]):
                    break
                stop, longest = stop + 1, longer
            first, last = (int(place) for place in np.searchsorted(rows, [start, stop]))
            positions = batch.positions[first:last] - np.array([start, 0])
            chunks.append(Chunk(np.arange(start, stop), longest, positions, slice(first, last)))
            start = stop
        return chunks

    def answers(self, batch: Batch, groups: int, layout: KeyValueLayout) -> list[Chunk]:
        """Cut a batch of which one token per sequence is evaluated."""
        limits = self.limits
        share = -(-batch.num_rows // limits.workers)
        fits = limits.past_bytes // max(1, 2 * layout.size * int(batch.lengths.max()))
        most = min(max(1, limits.chunk_tokens // groups), self._most_copies(groups))
        size = min(share, most, max(2, fits))
        return [answer_chunk(rows) for rows in runs(self.sides.beyond(batch), size)]

    def _most_copies(self, groups: int) -> int:
        """Most sequences of a chunk, by the copies of trainables that it can hold."""
        return max(1, COPY_BYTES // (groups * self.copy_bytes)) if self.copy_bytes else sys.maxsize

    def prompts(self, lengths: Int64, rows: Int64, beyond: bool = False) -> Iterator[Int64]:
        """Cut rows of these lengths into parts that have as many tokens as a chunk.

        Args:
            lengths: of all rows of a chunk.
            rows: those that are cut.
            beyond: the side of the chunk.
        """
        start = 0
        while start < len(rows):
            stop = start + 1
            while stop < len(rows):
                longest = self.padded(int(lengths[rows[start : stop + 1]].max()), beyond)
                if (stop + 1 - start) * longest > self.limits.chunk_tokens:
                    break
                stop += 1
            yield rows[start:stop]
            start = stop

    def waves(
        self, chunks: Sequence[Chunk], groups: int, more_bytes: Callable[[Chunk], int]
    ) -> Iterator[list[Chunk]]:
        """Collect the chunks that go through streamed blocks together.

        Args:
            chunks: of one batch.
            groups: copies that each of them grows to.
            more_bytes: tells what it holds per sequence besides the hidden states.
        """
        wave: list[Chunk] = []
        held = 0
        for chunk in chunks:
            row_bytes = 4 * groups * chunk.tokens * self.hidden_size + more_bytes(chunk)
            size = chunk.rows * row_bytes
            if len(wave) >= self.limits.workers and held + size > self.limits.wave_bytes:
                yield wave
                wave, held = [], 0
            wave.append(chunk)
            held += size
        if wave:
            yield wave


def runs(beyond: npt.NDArray[np.bool_], size: int) -> Iterator[slice]:
    """Divide rows into runs of at most `size` neighbours that are on one side."""
    start = 0
    for stop in range(1, len(beyond) + 1):
        ends = stop == len(beyond) or beyond[stop] != beyond[start] or stop - start == size
        if ends:
            yield slice(start, stop)
            start = stop


def answer_chunk(rows: slice) -> Chunk:
    """Make the chunk of some last tokens; of an odd number, the last one comes twice.

    A lone token would take other kernels, as `Cutter.padded` says.
    """
    count = rows.stop - rows.start
    positions = np.zeros((count, 2), np.int64)
    positions[:, 0] = np.arange(count)
    index = np.minimum(np.arange(rows.start, rows.stop + count % 2), rows.stop - 1)
    return Chunk(index, 1, positions, rows)
