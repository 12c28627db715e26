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

from edgezo_runtime.half_file import Float16, HalfFile, to_half

Float32 = npt.NDArray[np.float32]


class PrefixCache:
    """States of the sequences of one data set.

    Args:
        path: the file; made new.
        lengths: (N,) tokens of each sequence, by its key 0 to N - 1.
        hidden_size: H.
        max_bytes: no more than so much of the file is used; None for no limit.
    Raises:
        OSError: the file cannot be made.
    """

    def __init__(
        self,
        path: Path,
        lengths: npt.NDArray[np.integer],
        hidden_size: int,
        max_bytes: int | None = None,
    ) -> None:
        self._hidden_size = hidden_size
        self._file = HalfFile(path, lengths.astype(np.int64) * hidden_size, max_bytes)

    @property
    def size_bytes(self) -> int:
        """Bytes of the file when every sequence that fits is kept."""
        return self._file.size_bytes

    def close(self) -> None:
        """Close the file."""
        self._file.close()

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
            rounded = to_half(states[row, :length])  # what the model makes of padding means nothing
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
    def of(cls, shapes: dict[int, tuple[int, int]]) -> KeyValueLayout:
        """Lay blocks out one after the other; `shapes` gives (n, D)."""
        offsets: dict[int, int] = {}
        size = 0
        for block, (heads, width) in shapes.items():
            offsets[block] = size
            size += 2 * heads * width
        heads_of = {block: heads for block, (heads, _) in shapes.items()}
        return cls(heads_of, {block: width for block, (_, width) in shapes.items()}, offsets, size)

    def part(self, block: int) -> slice:
        """The numbers of one block."""
        start = self.offsets[block]
        return slice(start, start + 2 * self.heads[block] * self.widths[block])


@dataclass(frozen=True, slots=True)
class AnswerStates:
    """What a pass over last tokens starts from. B sequences, P earlier tokens at most.

    Attributes:
        hidden: (B, H) float32, last tokens at the entry of the first block that trains.
        past: (B, P, W) float16, keys and values of the tokens before them.
        lengths: (B,) int32, how many of P count.
        layout: what is where in W.
    """

    hidden: Float32
    past: Float16
    lengths: npt.NDArray[np.int32]
    layout: KeyValueLayout

    def keys_values(self, block: int, groups: int) -> npt.NDArray[np.float32]:
        """(2, groups * B, n, P, D): keys and values, repeated for every group, groups outermost."""
        heads, width = self.layout.heads[block], self.layout.widths[block]
        rows, tokens = self.past.shape[:2]
        own = self.past[:, :, self.layout.part(block)].reshape(rows, tokens, 2, heads, width)
        result = np.empty((2, groups, rows, heads, tokens, width), np.float32)
        result[:, 0] = own.transpose(2, 0, 3, 1, 4)
        result[:, 1:] = result[:, :1]
        return result.reshape(2, groups * rows, heads, tokens, width)


class AnswerCache:
    """`AnswerStates` of the prompts of one data set.

    Args:
        path: the file; made new.
        lengths: (N,) tokens of each prompt, by its key 0 to N - 1.
        hidden_size: H.
        layout: the blocks from the first that trains on.
        max_bytes: no more than so much of the file is used; None for no limit.
    Raises:
        OSError: the file cannot be made.
    """

    def __init__(
        self,
        path: Path,
        lengths: npt.NDArray[np.integer],
        hidden_size: int,
        layout: KeyValueLayout,
        max_bytes: int | None = None,
    ) -> None:
        sizes = hidden_size + (lengths.astype(np.int64) - 1) * layout.size
        self.layout = layout
        self._hidden_size = hidden_size
        self._file = HalfFile(path, sizes, max_bytes)

    @property
    def size_bytes(self) -> int:
        """Bytes of the file when every prompt that fits is kept."""
        return self._file.size_bytes

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, key: int) -> Float16 | None:
        """The record of a prompt, None if it was not kept."""
        return self._file.read(key)

    def write(self, key: int, hidden: Float32, past: Float32) -> Float16:
        """Keep a prompt's state (H,) and keys and values (P, W); returns its record.

        Raises:
            DivergedError: a number is beyond float16's range.
        """
        record = to_half(np.concatenate([hidden, past.reshape(-1)]))
        self._file.write(key, record)
        return record

    def gather(self, records: Sequence[Float16]) -> AnswerStates:
        """Put records together."""
        rest = [record[self._hidden_size :].reshape(-1, self.layout.size) for record in records]
        lengths = np.array([len(part) for part in rest], np.int32)
        past = np.zeros((len(rest), int(lengths.max()), self.layout.size), np.float16)
        for row, part in enumerate(rest):
            past[row, : len(part)] = part
        hidden = np.stack([record[: self._hidden_size] for record in records]).astype(np.float32)
        return AnswerStates(hidden, past, lengths, self.layout)
