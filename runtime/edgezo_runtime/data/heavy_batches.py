"""The batches of a run that take the most memory, found before any of them is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Int64Array
from edgezo_runtime.data.example_set import ExampleSet


@dataclass(frozen=True, slots=True)
class RowSizes:
    """The sizes of rows that passes depend on.

    Attributes:
        batch: examples of a batch.
        longest: tokens of the longest row.
        scored: scored tokens of the row that has the most.
    """

    batch: int
    longest: int
    scored: int

    @classmethod
    def of(cls, examples: ExampleSet, batch: int) -> RowSizes:
        """Read them off a set."""
        scored = max(example.places.size for example in examples)
        return cls(batch, int(examples.lengths().max()), scored)

    def joined(self, other: RowSizes) -> RowSizes:
        """The larger of each."""
        return RowSizes(
            max(self.batch, other.batch),
            max(self.longest, other.longest),
            max(self.scored, other.scored),
        )


class HeavyBatches:
    """Batches of a run by their size.

    Args:
        examples: the set.
        batch_size: examples of a batch.
        order: examples of every batch, (batches, B); None where any examples may come together.
        most_scored: scored tokens beyond which a row takes no more memory.

    Attributes:
        sizes: of the rows in the batches.
        lengths: (batches, B) tokens of every row.
        scored: (batches, B) scored tokens of every row, at most `most_scored`.
    """

    def __init__(
        self,
        examples: ExampleSet,
        batch_size: int,
        order: Int64Array | None,
        *,
        most_scored: int,
    ) -> None:
        lengths = examples.lengths().astype(np.int64)
        scored = np.array([example.places.size for example in examples], np.int64)
        capped = np.minimum(scored, most_scored)
        size = min(batch_size, len(examples))
        self._order = _any_order(lengths, capped, size) if order is None else order
        self.lengths: Int64Array = lengths[self._order]
        self.scored: Int64Array = capped[self._order]
        self.sizes = RowSizes(size, int(self.lengths.max()), int(scored[self._order].max()))

    @property
    def longest(self) -> Int64Array:
        """Tokens of the longest row of every batch, (batches,)."""
        longest: Int64Array = self.lengths.max(axis=1)
        return longest

    def indices(self, batch: int) -> list[int]:
        """The examples of a batch."""
        return [int(index) for index in self._order[batch]]


def sums_of_largest(values: Int64Array, counts: int | Int64Array) -> Int64Array:
    """Sums of the largest values of every batch, (batches,).

    Args:
        values: (batches, B).
        counts: number of them, or (batches,) of them; from 1 to B.
    """
    sums = np.cumsum(-np.sort(-values, axis=1), axis=1)
    found: Int64Array = sums[np.arange(len(sums)), np.clip(counts, 1, sums.shape[1]) - 1]
    return found


def heaviest_batches(needs: Int64Array, measures: Iterable[Int64Array], share: float) -> list[int]:
    """Choose batches so that none has a larger need, and none more of anything that matters.

    Args:
        needs: (batches,) computed bytes.
        measures: (batches,) each, what bytes come from; the computed bytes may weigh it wrongly.
        share: of the largest need, below which a batch does not matter.
    Returns:
        The batch of the largest need, then those that exceed the chosen ones by a measure.
    """
    chosen = [int(needs.argmax())]
    matter = np.flatnonzero(needs >= share * needs.max())
    for values in measures:
        best = int(matter[values[matter].argmax()])
        if values[best] > values[chosen].max():
            chosen.append(best)
    return chosen


def _any_order(lengths: Int64Array, scored: Int64Array, size: int) -> Int64Array:
    """Batches that no others exceed: neighbours by length, and by scored tokens, (batches, size).

    A batch whose longest row has L tokens has at most the tokens of the `size` longest rows among
    those of L tokens and fewer.
    """
    found: list[npt.NDArray[np.int64]] = []
    for values in (lengths, scored):
        falling = np.argsort(-values, kind="stable")
        _, firsts = np.unique(-values[falling], return_index=True)
        starts = np.unique(np.minimum(firsts, len(values) - size))
        found.append(falling[starts[:, None] + np.arange(size)])
    return np.concatenate(found)
