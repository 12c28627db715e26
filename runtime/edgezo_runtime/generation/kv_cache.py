"""The cache of keys and values of generated texts: each token is computed once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest_types import Graphs
from edgezo_runtime.errors import UsageError

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

ROOM_STEP = 64
"""Tokens that the cache grows by: attention copies the whole cache, used or not, at every token."""


def bytes_per_token(graphs: Graphs) -> int:
    """Count the bytes of one token's keys and values in all blocks, float32.

    They are 0 where blocks cannot continue from earlier tokens, and texts are read again.
    """
    if not graphs.continues:
        return 0
    return sum(4 * 2 * heads * width for heads, width in past_shapes(graphs))


def turnover(graphs: Graphs) -> float:
    """Peak memory per byte of cache: attention makes new keys and values of one block at a time."""
    if not graphs.continues:
        return 1.0
    largest = max(4 * 2 * heads * width for heads, width in past_shapes(graphs))
    return 1 + 2 * largest / bytes_per_token(graphs)


def past_shapes(graphs: Graphs) -> list[tuple[int, int]]:
    """Heads n and width D of the keys of every block.

    Raises:
        UsageError: a block cannot continue from earlier tokens.
    """
    shapes = [graph.past for graph in graphs.blocks]
    if None in shapes:
        raise UsageError(f"block {shapes.index(None)} cannot continue from earlier keys and values")
    return [shape for shape in shapes if shape is not None]


def room_for(tokens: int, most: int) -> int:
    """Room that holds `tokens`: a multiple of `ROOM_STEP`, or `most`."""
    return min(most, -(-tokens // ROOM_STEP) * ROOM_STEP)


def room_within(tokens: int, most: int) -> int:
    """The largest room of at most `tokens`."""
    return most if tokens >= most else tokens // ROOM_STEP * ROOM_STEP


class CachedRows:
    """How long R rows are, and how much room there is for them.

    Args:
        rows: R.
        most: tokens of the longest row.

    Attributes:
        lengths: (R,) tokens of each row so far.
    """

    def __init__(self, rows: int, most: int) -> None:
        self._most = most
        self._room = 0
        self.lengths = np.zeros(rows, np.int64)

    @property
    def rows(self) -> int:
        """R."""
        return len(self.lengths)

    @property
    def room(self) -> int:
        """Tokens that there is room for in every row."""
        return self._room

    def has_room(self, tokens: int) -> bool:
        """Is there room for rows of `tokens`?"""
        return room_for(tokens, self._most) <= self._room


class KvCache(CachedRows):
    """Keys and values of R rows, with room for tokens to come.

    Args:
        graphs: of the bundle.
        rows: R.
        most: tokens of the longest row.
        blocks: blocks that run; None for all.

    Memory:
        R times the room times `bytes_per_token`; while it grows, one block twice.
    """

    on_device = False

    def __init__(
        self, graphs: Graphs, rows: int, most: int, blocks: frozenset[int] | None = None
    ) -> None:
        super().__init__(rows, most)
        self._shapes = past_shapes(graphs)
        self._blocks = range(len(self._shapes)) if blocks is None else sorted(blocks)
        self._pairs = [
            (np.zeros((rows, heads, 0, width), np.float32),) * 2 for heads, width in self._shapes
        ]

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return sum(array.nbytes for pair in self._pairs for array in pair)

    def reserve(self, tokens: int) -> None:
        """Make room for rows of `tokens`."""
        room = room_for(tokens, self._most)
        if room > self._room:
            for block in self._blocks:
                keys, values = self._pairs[block]
                self._pairs[block] = _longer(keys, room), _longer(values, room)
            self._room = room

    def of(self, block: int, rows: slice) -> tuple[Float32, Float32]:
        """Keys and values (R', n, room, D) of neighbouring rows, views."""
        keys, values = self._pairs[block]
        return keys[rows], values[rows]

    def put(self, block: int, rows: Int64, starts: Int64, made: Sequence[Float32]) -> None:
        """Store keys and values.

        Args:
            block: the block that made them.
            rows: (R',) the rows that they belong to.
            starts: (R',) the first new token of each row.
            made: keys and values (R', n, S, D) of all tokens from the first on. Those from `starts`
                on are stored, as far as there is room.
        """
        for kept, new in zip(self._pairs[block], made, strict=True):
            for place, (row, start) in enumerate(zip(rows, starts, strict=True)):
                own = new[place, :, start : self._room]
                kept[row, :, start : start + own.shape[1]] = own

    def put_tokens(self, block: int, rows: slice, made: Sequence[Float32], tokens: int) -> None:
        """Store keys and values of more tokens per row, behind its others.

        Args:
            block: the block that made them.
            rows: neighbouring rows.
            made: keys and values (R', n, S, D), S of the room or more; or those of the new tokens
                alone, S = `tokens`.
            tokens: the new ones of each row.
        """
        places = self.lengths[rows, None] + np.arange(tokens)
        count = np.arange(len(places))[:, None]
        for kept, new in zip(self._pairs[block], made, strict=True):
            alone = new.shape[2] == tokens
            own = new.transpose(0, 2, 1, 3) if alone else new[count, :, places]
            kept[rows][count, :, places] = own

    def keep(self, rows: Int64) -> None:
        """Keep these rows only, moved to the front.

        Args:
            rows: ascending; the last one may come twice where there is a row for it.
        Memory:
            None, and none is given back: the memory of the other rows stays until all texts have
            ended.
        """
        self.lengths = self.lengths[rows]
        for block, (keys, values) in enumerate(self._pairs):
            for place, row in enumerate(rows.tolist()):
                if place != row:
                    keys[place], values[place] = keys[row], values[row]
            self._pairs[block] = keys[: len(rows)], values[: len(rows)]


def _longer(array: Float32, room: int) -> Float32:
    rows, heads, tokens, width = array.shape
    result = np.zeros((rows, heads, room, width), np.float32)
    result[:, :, :tokens] = array
    return result
