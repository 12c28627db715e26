"""Hidden states, keys and values that do not change while a run tunes, on disk between its steps.

`PrefixCache` has the hidden states at the entry of the first block that trains. `AnswerCache` is
for runs whose adapters act on the last token of a prompt only, so that the tokens before it never
change: it has their keys and values, and the last token's state at the entry of that block. A cache
chooses the passes that can use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.answer_pass import AnswerPass
from edgezo_runtime.engine.answer_states import AnswerStates, KeyValueLayout
from edgezo_runtime.engine.chunks import Chunk, Cutter
from edgezo_runtime.engine.first_order_pass import (
    AnswerFirstOrderPass,
    ExampleCutter,
    WayBack,
    WholeFirstOrderPass,
)
from edgezo_runtime.engine.forward import FirstActive, ScoringPass, StateCache, WholePass, Work
from edgezo_runtime.system.float16_file import Float16File, to_float16

Float32 = npt.NDArray[np.float32]


class Cache(Protocol):
    """What passes use of the caches here, `NO_CACHE` included."""

    @property
    def last_tokens(self) -> bool:
        """Do the passes evaluate last tokens only, on top of cached keys and values?"""

    def scoring_pass(
        self,
        work: Work,
        code: tuple[Float32, Float32] | None,
        first_active: FirstActive,
        entry: int,
        scope: Scope,
    ) -> ScoringPass:
        """Make a pass that scores, as `Engine.score` says; the states enter at block `entry`."""

    def cut(self, cutter: Cutter, batch: Batch, groups: int) -> list[Chunk]:
        """Cut a batch into the chunks of such a pass."""

    def first_order_pass(self, work: Work, entry: int, scope: Scope, way: WayBack) -> ScoringPass:
        """Make a pass that scores one group, and carries gradients back."""

    def cut_examples(self, cutter: ExampleCutter, batch: Batch) -> list[Chunk]:
        """Cut a batch into the parts of such a pass."""

    def evaluated_tokens(self, batch: Batch) -> int:
        """Count the tokens of a batch that a pass evaluates when all its states are cached."""


class WholeSequences:
    """Passes over whole sequences, without a cache."""

    @property
    def last_tokens(self) -> bool:
        """Always False: the passes evaluate whole sequences."""
        return False

    def states(self) -> StateCache | None:
        """Hidden states that are cached; None here."""
        return None

    def scoring_pass(
        self,
        work: Work,
        code: tuple[Float32, Float32] | None,
        first_active: FirstActive,
        entry: int,
        scope: Scope,
    ) -> ScoringPass:
        """Make a pass over whole sequences."""
        return WholePass(work, code, first_active, self.states(), entry, scope)

    def cut(self, cutter: Cutter, batch: Batch, groups: int) -> list[Chunk]:
        """Cut a batch between sequences."""
        return cutter.chunks(batch, groups)

    def first_order_pass(self, work: Work, entry: int, scope: Scope, way: WayBack) -> ScoringPass:
        """Make a pass over whole sequences, and back."""
        return WholeFirstOrderPass(work, None, 0, self.states(), entry, scope, way=way)

    def cut_examples(self, cutter: ExampleCutter, batch: Batch) -> list[Chunk]:
        """Cut a batch between examples."""
        return cutter.cut(batch)

    def evaluated_tokens(self, batch: Batch) -> int:
        """All tokens of the batch; padding does not count."""
        return int(batch.lengths.sum())


NO_CACHE: Cache = WholeSequences()
"""For passes that cache nothing."""


class _StateFile:
    """A file of records, one per sequence: some numbers, and more for each of its tokens."""

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
        """Bytes of the file when it has every sequence that fits."""
        return self._file.size_bytes

    def extend(self, lengths: npt.NDArray[np.integer]) -> None:
        """Make room for more sequences, given the tokens of each."""
        self._file.extend(self._sizes(lengths))

    def _sizes(self, lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Count the numbers of sequences of these lengths."""
        own, by_token = self._numbers
        return own + lengths.astype(np.int64) * by_token

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class PrefixCache(WholeSequences, _StateFile):
    """Hidden states of the sequences of one data set.

    Args:
        path: the file; made new. None forgets the numbers, as `Float16File` does.
        lengths: (N,) tokens of each sequence, by its key 0 to N - 1.
        hidden_size: H.
        max_bytes: largest size of the file; None for no limit.
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

    def states(self) -> StateCache:
        """This cache."""
        return self

    def read(self, keys: Sequence[int], tokens: int) -> Float32 | None:
        """Read states (len(keys), tokens, H) float32, zero behind the end of a sequence.

        Returns:
            The states; None if one is missing.
        """
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
        """Cache states (len(keys), S, H) and return them as a later read gives them.

        Raises:
            DivergedError: a state is beyond float16's range.
        """
        result = np.zeros_like(states)
        for row, key in enumerate(keys):
            length = int(lengths[row])
            rounded = to_float16(states[row, :length])  # states of padding mean nothing
            result[row, :length] = rounded
            self._file.write(key, rounded)
        return result


class AnswerCache(_StateFile):
    """`AnswerStates` of the prompts of one data set.

    Args:
        path: the file; made new. None forgets the numbers, as `Float16File` does.
        lengths: (N,) tokens of each prompt, by its key 0 to N - 1.
        hidden_size: H.
        layout: of the blocks from the first that trains on.
        max_bytes: largest size of the file; None for no limit.
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

    @property
    def last_tokens(self) -> bool:
        """Always True: the passes evaluate last tokens only."""
        return True

    def gather(
        self, keys: Sequence[int], lengths: npt.NDArray[np.int64]
    ) -> tuple[AnswerStates, npt.NDArray[np.int64]]:
        """Collect the states of prompts.

        Args:
            keys: the B prompts.
            lengths: (B,) tokens of each.
        Returns:
            The states, and the rows that are missing in them.
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
        """Complete a row by its last token's state (H,), and cache the row.

        Raises:
            DivergedError: a number is beyond float16's range.
        """
        states.hidden[row] = to_float16(hidden)
        self._file.write(key, states.hidden[row], states.past[row, : states.lengths[row]])

    def scoring_pass(
        self,
        work: Work,
        code: tuple[Float32, Float32] | None,
        first_active: FirstActive,
        entry: int,
        scope: Scope,
    ) -> ScoringPass:
        """Make a pass over last tokens."""
        return AnswerPass(work, code, first_active, self, entry)

    def cut(self, cutter: Cutter, batch: Batch, groups: int) -> list[Chunk]:
        """Cut a batch of last tokens."""
        return cutter.answers(batch, groups, self.layout)

    def first_order_pass(self, work: Work, entry: int, scope: Scope, way: WayBack) -> ScoringPass:
        """Make a pass over last tokens, and back."""
        return AnswerFirstOrderPass(work, None, 0, self, entry, way=way)

    def cut_examples(self, cutter: ExampleCutter, batch: Batch) -> list[Chunk]:
        """Cut a batch of last tokens between examples."""
        return cutter.answers(batch, 2 * self.layout.size)

    def evaluated_tokens(self, batch: Batch) -> int:
        """One token per sequence."""
        return batch.num_rows
