"""Batches: examples padded together, and the order of examples over the steps of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.example_set import DataWarning, Example, ExampleSet, Kind
from edgezo_runtime.errors import DataError, UsageError
from edgezo_runtime.noise import derive_seed

Int64Array = npt.NDArray[np.int64]

WINDOW_BATCHES = 8
"""Number of batches whose rows are sorted by length together."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """E examples that are evaluated together, as B sequences (rows of the model).

    B is E times the number of classes for "candidates", in class order, and 2 E for "pairs" (the
    sequences of an example are neighbours), else E. T is the number of scored tokens.

    Attributes:
        kind: how the scores become losses.
        example_ids: (B,) the example of each sequence, by its position in the file.
        input_ids: (B, S) token ids, padded on the right.
        lengths: (B,) tokens of each sequence without padding.
        positions: (T, 2) row of the batch and index of the token whose prediction is scored, sorted
            by row and then index; every row has at least one.
        targets: (T,) the right token at each position; for "labels" the token of the class.
        label_ids: (C,) the token of each class for "labels", for "pairs" the numbers of an
            embedding, else None.
        row_example: (B,) which example of the batch, 0 to E - 1, a sequence belongs to.
        labels: (E,) class of each example, or -1.
    """

    kind: Kind
    example_ids: Int64Array
    input_ids: Int64Array
    lengths: Int64Array
    positions: Int64Array
    targets: Int64Array
    label_ids: Int64Array | None
    row_example: Int64Array
    labels: Int64Array

    @property
    def num_examples(self) -> int:
        """E."""
        return int(self.labels.size)

    @property
    def num_rows(self) -> int:
        """B."""
        return int(self.lengths.size)

    @property
    def seq(self) -> int:
        """S."""
        return int(self.input_ids.shape[1])

    @property
    def ids(self) -> Int64Array:
        """Example ids without repeats, (E,), aligned with `labels`."""
        return self.example_ids[:: self.num_rows // self.num_examples]

    @property
    def row_keys(self) -> Int64Array:
        """A number for each sequence, (B,), unique within the set."""
        each = self.num_rows // self.num_examples
        return self.example_ids * each + np.arange(self.num_rows) % each

    @property
    def first_scored(self) -> Int64Array:
        """Index of the first scored token of each sequence, (B,)."""
        _, first = np.unique(self.positions[:, 0], return_index=True)
        columns: Int64Array = self.positions[first, 1]
        return columns

    @property
    def padding(self) -> int:
        """Number of padding tokens in `input_ids`."""
        return int(self.input_ids.size - self.lengths.sum())


def behind(batch: Batch, tokens: Sequence[int]) -> Batch:
    """Return the batch with these tokens before every sequence."""
    count = len(tokens)
    front = np.tile(np.array(tokens, np.int64), (batch.num_rows, 1))
    return replace(
        batch,
        input_ids=np.concatenate([front, batch.input_ids], axis=1),
        lengths=batch.lengths + count,
        positions=batch.positions + np.array([0, count]),
    )


def make_batch(examples: ExampleSet, indices: Sequence[int], pad_to: int = 1) -> Batch:
    """Make a batch of examples.

    Args:
        examples: the set.
        indices: indices of its examples, in the batch's order; at least one.
        pad_to: round S up to a multiple of `pad_to`, but not above `examples.max_seq`.

    Returns:
        The batch; S is the length of its longest sequence, rounded up.
    """
    chosen = [examples.examples[index] for index in indices]
    rows = [row for example in chosen for row in _rows(example, examples)]
    lengths = np.array([row[0].size for row in rows], np.int64)
    longest = int(lengths.max())
    seq = max(longest, min(-(-longest // pad_to) * pad_to, examples.max_seq))
    input_ids = np.full((len(rows), seq), examples.pad_id, np.int64)
    for number, (tokens, _, _) in enumerate(rows):
        input_ids[number, : tokens.size] = tokens
    row_numbers = np.repeat(np.arange(len(rows)), [places.size for _, places, _ in rows])
    columns = np.concatenate([places for _, places, _ in rows])
    row_example = np.repeat(np.arange(len(chosen)), examples.sequences_per_example)
    ids = np.array([example.example_id for example in chosen], np.int64)
    is_labels = examples.kind in ("labels", "pairs")
    return Batch(
        kind=examples.kind,
        example_ids=ids[row_example],
        input_ids=input_ids,
        lengths=lengths,
        positions=np.stack([row_numbers, columns], axis=1).astype(np.int64),
        targets=np.concatenate([targets for _, _, targets in rows]).astype(np.int64),
        label_ids=np.array(examples.label_tokens, np.int64)[:, 0] if is_labels else None,
        row_example=row_example.astype(np.int64),
        labels=np.array([example.label for example in chosen], np.int64),
    )


class Batches:
    """Training batches by step: `batch(step)` depends on the arguments and `step` only.

    Each epoch has a new permutation of the examples, keyed by (seed, epoch) with integer arithmetic
    that is the same on every machine. Examples that do not fill a last batch are left out of the
    epoch; each epoch leaves out others. The rows of `WINDOW_BATCHES` batches are sorted by length,
    so that a batch needs little padding; then the batches are shuffled.

    After examples are added, an epoch over all examples begins. Its order also depends on their
    number.
    """

    def __init__(
        self,
        examples: ExampleSet,
        batch_size: int,
        seed: int,
        *,
        pad_to: int = 1,
        window: int = WINDOW_BATCHES,
    ) -> None:
        """Prepare the order.

        Args:
            examples: the set; if it has fewer examples than `batch_size`, batches are smaller and
                `warnings` says so.
            batch_size: examples per batch, > 0.
            seed: 0 to 2**64 - 1.
            pad_to: round the padded length up to a multiple of `pad_to`.
            window: batches sorted by length together; 1 does not sort across batches.

        Raises:
            UsageError: a number is out of range.
            DataError: the set is empty.
        """
        _check_sizes(examples, batch_size, pad_to)
        if window < 1:
            raise UsageError(f"window must be 1 batch or more, not {window}")
        self.examples = examples
        self.wanted_size = batch_size
        self.batch_size = min(batch_size, len(examples))
        self.seed = seed
        self._from_step = 0
        self._order_label = ""
        self.pad_to = pad_to
        self.window = window
        self.warnings: tuple[DataWarning, ...] = ()
        if self.batch_size < batch_size:
            self.warnings = (
                DataWarning(
                    "small-data",
                    f"{examples.path} has {len(examples)} rows, fewer than the batch size "
                    f"{batch_size}; the batch size is {self.batch_size}",
                    len(examples),
                ),
            )
        self._lengths = examples.lengths()
        self._epoch = -1
        self._order = np.empty((0, 0), np.int64)
        derive_seed(seed, "data order")  # refuses a seed out of range

    def grow(self, examples: ExampleSet, step: int) -> None:
        """Continue with more examples; earlier steps are no longer available.

        Args:
            examples: the present examples with more examples after them.
            step: the first step with the new examples.
        """
        if len(examples) < len(self.examples):
            raise UsageError(
                f"{len(examples)} examples, fewer than the {len(self.examples)} so far"
            )
        new = replace(examples, examples=examples.examples[len(self.examples) :])
        self._lengths = np.concatenate((self._lengths, new.lengths()))
        self.examples = examples
        self.batch_size = min(self.wanted_size, len(examples))
        self._from_step, self._epoch = step, -1
        self._order_label = f" of {len(examples)}"

    @property
    def steps_per_epoch(self) -> int:
        """Number of whole batches in one pass over the data."""
        return len(self.examples) // self.batch_size

    def batch(self, step: int) -> Batch:
        """Make the batch of a step.

        Args:
            step: 0 or more.

        Returns:
            The batch; it does not depend on earlier calls.

        Raises:
            UsageError: `step` is negative.
        """
        return make_batch(self.examples, self.indices(step), self.pad_to)

    def part(self, step: int, count: int) -> Batch:
        """Make a batch of at most the first `count` examples of a step's batch."""
        return make_batch(self.examples, self.indices(step)[:count], self.pad_to)

    def indices(self, step: int) -> list[int]:
        """Return the indices of the examples in a step's batch, in its order."""
        if step < self._from_step:
            raise UsageError(f"step must be {self._from_step} or more, not {step}")
        epoch, place = divmod(step - self._from_step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order, self._epoch = self._epoch_order(epoch), epoch
        return [int(index) for index in self._order[place]]

    def order(self, until: int) -> Int64Array:
        """Return the examples of every batch from the present order's first on, (batches, B).

        Args:
            until: the step after the last one; one batch is returned at least.
        """
        count = max(1, until - self._from_step)
        epochs = range(-(-count // self.steps_per_epoch))
        return np.concatenate([self._epoch_order(epoch) for epoch in epochs])[:count]

    def _epoch_order(self, epoch: int) -> Int64Array:
        """Return the examples of each batch of an epoch, (steps_per_epoch, batch_size)."""
        steps, size = self.steps_per_epoch, self.batch_size
        order = permutation(len(self.examples), self._key("data order", epoch))
        order = order[: steps * size]
        for start in range(0, order.size, self.window * size):
            part = order[start : start + self.window * size]
            part[:] = part[np.argsort(self._lengths[part], kind="stable")]
        shuffled = permutation(steps, self._key("batch order", epoch))
        return order.reshape(steps, size)[shuffled]

    def _key(self, what: str, epoch: int) -> int:
        return derive_seed(self.seed, f"{what}{self._order_label}", epoch)


class SequentialBatches:
    """Every example once, for evaluation: the longest first, so that memory use peaks at the start.

    `Batch.ids` names the examples of a batch.
    """

    def __init__(self, examples: ExampleSet, batch_size: int, *, pad_to: int = 1) -> None:
        """Prepare the order.

        Args:
            examples: the set.
            batch_size: examples per batch, > 0; the last batch may have fewer.
            pad_to: round the padded length up to a multiple of `pad_to`.

        Raises:
            UsageError: a number is out of range.
            DataError: the set is empty.
        """
        _check_sizes(examples, batch_size, pad_to)
        self.examples = examples
        self.batch_size = batch_size
        self.pad_to = pad_to
        self._order = np.argsort(-examples.lengths(), kind="stable")

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.examples) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """The batches, one after the other."""
        for start in range(0, len(self.examples), self.batch_size):
            part = self._order[start : start + self.batch_size]
            yield make_batch(self.examples, [int(index) for index in part], self.pad_to)


def heaviest(examples: ExampleSet, count: int) -> list[int]:
    """Find the examples whose passes take the most memory: the longest, and the most scored tokens.

    Blocks take memory by the tokens of a row, scorers by its scored tokens. In a set of answers the
    longest rows may score a few tokens each, and other rows hundreds.

    Args:
        examples: the set.
        count: number of examples wanted, at least 1.
    Returns:
        Indices, half of them by either measure, those of equal size in the order of the file; the
        longest first.
    """
    lengths = examples.lengths().astype(np.int64)
    scored = np.array([example.places.size for example in examples], np.int64)
    by_length = np.lexsort((-scored, -lengths))
    by_scores = np.lexsort((-lengths, -scored))
    taken = dict.fromkeys(int(i) for pair in zip(by_length, by_scores, strict=True) for i in pair)
    return sorted(list(taken)[:count], key=lambda index: (-lengths[index], index))


def permutation(count: int, key: int) -> Int64Array:
    """Shuffle 0 ... count - 1 by sorting SplitMix64 hashes of key + i.

    Args:
        count: number of values.
        key: 0 to 2**64 - 1.

    Returns:
        (count,) int64, the same on every machine and with every numpy.

    References:
        Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".
    """
    x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(x ^ (x >> np.uint64(31)), kind="stable").astype(np.int64)


_Sequence = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]


def _rows(example: Example, examples: ExampleSet) -> Iterator[_Sequence]:
    """Yield tokens, scored places and targets of each sequence of an example."""
    tokens, places = example.tokens, example.places
    if examples.kind == "labels":
        target = examples.label_tokens[example.label][0]
        yield tokens, places, np.array([target], np.int32)
    elif examples.kind == "pairs":
        first = int(places[0]) + 1
        for text in (tokens[:first], tokens[first:]):
            yield text, np.array([text.size - 1], np.int32), np.zeros(1, np.int32)
    elif examples.kind == "completion":
        yield tokens[:-1], places - np.int32(1), tokens[places]
    else:
        for label in examples.label_tokens:
            word = np.array(label, np.int32)
            columns = np.arange(tokens.size - 1, tokens.size - 1 + word.size, dtype=np.int32)
            yield np.concatenate([tokens, word[:-1]]), columns, word


def _check_sizes(examples: ExampleSet, batch_size: int, pad_to: int) -> None:
    if batch_size < 1:
        raise UsageError(f"batch size must be 1 example or more, not {batch_size}")
    if pad_to < 1:
        raise UsageError(f"pad_to must be 1 token or more, not {pad_to}")
    if not len(examples):
        raise DataError(f"{examples.path}: no rows; expected at least one")
