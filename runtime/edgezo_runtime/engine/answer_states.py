"""Cached states of prompts: keys and values of their earlier tokens, hidden states of the last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest_types import Graphs
from edgezo_runtime.errors import UsageError
from edgezo_runtime.system.float16_file import Float16, to_float16

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class KeyValueLayout:
    """Where a block's keys and values lie among the numbers that are cached per token.

    Attributes:
        heads: key-value heads n of each block, by block.
        widths: numbers D of a head, by block.
        offsets: first number of each block: its keys (n, D), then its values.
        size: numbers per token, all blocks together.
    """

    heads: dict[int, int]
    widths: dict[int, int]
    offsets: dict[int, int]
    size: int

    @classmethod
    def of(cls, graphs: Graphs, first: int) -> KeyValueLayout:
        """Lay out the blocks from `first` on, one after the other.

        Raises:
            UsageError: a block takes no past.
        """
        heads: dict[int, int] = {}
        widths: dict[int, int] = {}
        offsets: dict[int, int] = {}
        size = 0
        for block, graph in enumerate(graphs.blocks):
            if block < first:
                continue
            if graph.past is None:
                raise UsageError(f"block {block} cannot continue from earlier keys and values")
            offsets[block] = size
            heads[block], widths[block] = graph.past
            size += 2 * heads[block] * widths[block]
        return cls(heads, widths, offsets, size)

    def part(self, block: int) -> slice:
        """The numbers of one block."""
        start = self.offsets[block]
        return slice(start, start + 2 * self.heads[block] * self.widths[block])


@dataclass(frozen=True, slots=True)
class AnswerStates:
    """The cached states that a pass over last tokens starts from: B rows, at most P earlier tokens.

    Attributes:
        hidden: (B, H) float16, the last tokens at the entry of the first block that trains.
        past: (B, P, W) float16, keys and values of the tokens before them.
        lengths: (B,) int32, the earlier tokens of each row; the rest of P is padding.
        layout: the places of keys and values within W.
    """

    hidden: Float16
    past: Float16
    lengths: npt.NDArray[np.int32]
    layout: KeyValueLayout

    def fill(self, rows: npt.NDArray[np.int64], block: int, half: int, values: Float32) -> None:
        """Round a block's keys (half 0) or values (1) of some rows, (len(rows), n, S, D).

        Raises:
            DivergedError: a number is beyond float16's range.
        """
        size = values.shape[1] * values.shape[3]
        start = self.layout.part(block).start + half * size
        for row, own in zip(rows, values, strict=True):
            count = int(self.lengths[row])
            by_token = to_float16(own[:, :count]).transpose(1, 0, 2)
            self.past[row, :count, start : start + size] = by_token.reshape(count, size)

    def keys_values(self, block: int, groups: int) -> npt.NDArray[np.float32]:
        """(2, groups * B, n, P, D): keys and values, repeated for every group, groups outermost."""
        heads, width = self.layout.heads[block], self.layout.widths[block]
        rows, tokens = self.past.shape[:2]
        own = self.past[:, :, self.layout.part(block)].reshape(rows, tokens, 2, heads, width)
        result = np.empty((2, groups, rows, heads, tokens, width), np.float32)
        result[:, 0] = own.transpose(2, 0, 3, 1, 4)
        result[:, 1:] = result[:, :1]
        return result.reshape(2, groups * rows, heads, tokens, width)
