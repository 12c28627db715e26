"""What does not change while a run tunes, kept on disk between its steps.

`PrefixCache`: the hidden states at the entry of the first block that trains. `AnswerCache`: where
the adapters act on the last token of a prompt only, the tokens before it never change at all; of
them their keys and values are kept, of the last token its state at the entry of that block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest_types import Graphs
from edgezo_runtime.errors import UsageError
from edgezo_runtime.system.float16_file import Float16, Float16File, to_float16

Float32 = npt.NDArray[np.float32]


class _Cache:
    """A file of records, one a sequence, each so many numbers and so many more a token."""

    def __init__(
        self,
        path: Path | None,
        lengths: npt.NDArray[np.integer],
        numbers: tuple[int, int],
        max_bytes: int | None,
    ) -> None:
        self._numbers = numbers
        self._file = Float16File(path, self._sizes(lengths), max_bytes)

    @property
    def size_bytes(self) -> int:
        """Bytes of the file when every sequence that fits is kept."""
        return self._file.size_bytes

    def extend(self, lengths: npt.NDArray[np.integer]) -> None:
        """Make room for more sequences, of so many tokens each."""
        self._file.extend(self._sizes(lengths))

    def _sizes(self, lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Numbers that are kept of sequences of so many tokens."""
        own, by_token = self._numbers
        return own + lengths.astype(np.int64) * by_token

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class PrefixCache(_Cache):
    """States of the sequences of one data set.

    Args:
        path: the file; made new. None forgets the numbers, see `Float16File`.
        lengths: (N,) tokens of each sequence, by its key 0 to N - 1.
        hidden_size: H.
        max_bytes: no more than so much of the file is used; None for no limit.
    Raises:
        OSError: the file cannot be made.
    """

    def __init__(
        self,
        path: Path | None,
        lengths: npt.NDArray[np.integer],
        hidden_size: int,
        max_bytes: int | None = None,
    ) -> None:
        self._hidden_size = hidden_size
        super().__init__(path, lengths, (0, hidden_size), max_bytes)

    def read(self, keys: Sequence[int], tokens: int) -> Float32 | None:
        """States (len(keys), tokens, H) float32, zero behind a sequence's end; None if one is
        missing."""
        states = np.zeros((len(keys), tokens, self._hidden_size), np.float32)
        for row, key in enumerate(keys):
            record = self._file.read(key)
            if record is None:
                return None
            kept = record.reshape(-1, self._hidden_size)
            states[row, : len(kept)] = kept
        return states

    def write(
        self, keys: Sequence[int], lengths: npt.NDArray[np.int64], states: Float32
    ) -> Float32:
        """Keep states (len(keys), S, H) and return them as a later read would give them.

        Raises:
            DivergedError: a state is beyond float16's range.
        """
        result = np.zeros_like(states)
        for row, key in enumerate(keys):
            length = int(lengths[row])
            rounded = to_float16(
                states[row, :length]
            )  # what the model makes of padding means nothing
            result[row, :length] = rounded
            self._file.write(key, rounded)
        return result


@dataclass(frozen=True, slots=True)
class KeyValueLayout:
    """Where a block's keys and values stand among the numbers kept of a token.

    Attributes:
        heads: key-value heads n of each block, by block.
        widths: numbers D in a head.
        offsets: first number of a block; keys (n, D), then values.
        size: numbers of a token in all.
    """

    heads: dict[int, int]
    widths: dict[int, int]
    offsets: dict[int, int]
    size: int

    @classmethod
    def of(cls, graphs: Graphs, first: int) -> KeyValueLayout:
        """The blocks from `first` on, one after the other.

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
                raise UsageError(f"block {block} cannot go on from earlier keys and values")
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
    """What a pass over last tokens starts from. B sequences, P earlier tokens at most.

    Attributes:
        hidden: (B, H) float16, last tokens at the entry of the first block that trains.
        past: (B, P, W) float16, keys and values of the tokens before them.
        lengths: (B,) int32, how many of P count.
        layout: what is where in W.
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


class AnswerCache(_Cache):
    """`AnswerStates` of the prompts of one data set.

    Args:
        path: the file; made new. None forgets the numbers, see `Float16File`.
        lengths: (N,) tokens of each prompt, by its key 0 to N - 1.
        hidden_size: H.
        layout: the blocks from the first that trains on.
        max_bytes: no more than so much of the file is used; None for no limit.
    Raises:
        OSError: the file cannot be made.
    """

    def __init__(
        self,
        path: Path | None,
        lengths: npt.NDArray[np.integer],
        hidden_size: int,
        layout: KeyValueLayout,
        max_bytes: int | None = None,
    ) -> None:
        self.layout = layout
        self._hidden_size = hidden_size
        super().__init__(path, lengths, (hidden_size - layout.size, layout.size), max_bytes)

    def gather(
        self, keys: Sequence[int], lengths: npt.NDArray[np.int64]
    ) -> tuple[AnswerStates, npt.NDArray[np.int64]]:
        """What is kept of prompts.

        Args:
            keys: B of them.
            lengths: (B,) tokens of each.
        Returns:
            States whose rows are filled as far as they are kept, and the rows that are not.
        """
        past = np.zeros((len(keys), int(lengths.max()) - 1, self.layout.size), np.float16)
        hidden = np.empty((len(keys), self._hidden_size), np.float16)
        states = AnswerStates(hidden, past, (lengths - 1).astype(np.int32), self.layout)
        missing = [
            row
            for row, key in enumerate(keys)
            if not self._file.read_into(key, hidden[row], past[row, : lengths[row] - 1])
        ]
        return states, np.array(missing, np.int64)

    def put(self, states: AnswerStates, row: int, key: int, hidden: Float32) -> None:
        """Set a row's state (H,), and keep the row, whose keys and values were filled before.

        Raises:
            DivergedError: a number is beyond float16's range.
        """
        states.hidden[row] = to_float16(hidden)
        self._file.write(key, states.hidden[row], states.past[row, : states.lengths[row]])
