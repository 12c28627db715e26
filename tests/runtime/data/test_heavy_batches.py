"""The heaviest batches of an order, against a search over every batch and every choice of rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgezo_runtime.data.batches import Batches
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.heavy_batches import (
    HeavyBatches,
    RowSizes,
    heaviest_batches,
    sums_of_largest,
)
from tests.runtime.tiny_sets import random_set

MOST_SCORED = 5


def rows(count: int, seed: int = 0) -> ExampleSet:
    """Completions of 3 to 40 tokens, of which the odd ones score 1, the others up to all."""
    sizes = np.random.default_rng(seed).integers(3, 40, count)
    found = random_set("completion", [int(size) for size in sizes], 0, scored=30)
    few = random_set("completion", [int(size) for size in sizes], 0, scored=1)
    mixed = [one if n % 2 else other for n, (one, other) in enumerate(zip(few, found, strict=True))]
    return found.chosen([]).plus(mixed)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_the_batches_are_those_that_steps_take(steps: int) -> None:
    examples = rows(45)
    batches = Batches(examples, 4, seed=3)
    heavy = HeavyBatches(examples, 4, batches.order(steps), most_scored=MOST_SCORED)
    for step in range(steps):
        assert heavy.indices(step) == batches.indices(step)
        batch = batches.batch(step)
        assert heavy.lengths[step].tolist() == batch.lengths.tolist()
        scored = np.bincount(batch.positions[:, 0]).clip(max=MOST_SCORED)
        assert heavy.scored[step].tolist() == scored.tolist()
    taken = {index for step in range(steps) for index in batches.indices(step)}
    assert heavy.sizes == RowSizes(
        4,
        max(int(examples.lengths()[index]) for index in taken),
        max(examples.examples[index].places.size for index in taken),
    )
    assert heavy.longest.tolist() == [batches.batch(step).seq for step in range(steps)]


@pytest.mark.parametrize("seed", range(6))
def test_no_batch_exceeds_those_of_any_order(seed: int) -> None:
    """For every set of four of nine examples, and sums of as many rows as its longest one says."""
    examples = rows(9, seed)
    heavy = HeavyBatches(examples, 4, None, most_scored=MOST_SCORED)
    lengths = examples.lengths()
    scored = np.array([one.places.size for one in examples]).clip(max=MOST_SCORED)

    def counts(longest: int) -> int:
        return 1 + 60 // longest

    own = np.array([counts(int(longest)) for longest in heavy.longest])
    most = [
        *(int(sums_of_largest(heavy.lengths, count).max()) for count in range(1, 5)),
        *(int(sums_of_largest(heavy.scored, count).max()) for count in range(1, 5)),
        int(sums_of_largest(heavy.lengths, own).max()),
    ]
    for found in itertools.combinations(range(9), 4):
        falling = np.sort(lengths[list(found)])[::-1]
        by_scores = np.sort(scored[list(found)])[::-1]
        taken = [falling[:count].sum() for count in range(1, 5)]
        taken += [by_scores[:count].sum() for count in range(1, 5)]
        taken.append(falling[: counts(int(falling[0]))].sum())
        assert (np.array(taken) <= np.array(most)).all()
    assert heavy.sizes == RowSizes.of(examples, 4)


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    examples = rows(3)
    heavy = HeavyBatches(examples, 16, None, most_scored=MOST_SCORED)
    assert {tuple(sorted(heavy.indices(batch))) for batch in range(len(heavy.lengths))} == {
        (0, 1, 2)
    }
    assert heavy.sizes.batch == 3


def test_sums_of_the_largest() -> None:
    values = np.array([[3, 9, 1], [4, 4, 5]])
    assert sums_of_largest(values, 1).tolist() == [9, 5]
    assert sums_of_largest(values, np.array([2, 99])).tolist() == [12, 13]
    assert sums_of_largest(values, 0).tolist() == [9, 5]


def test_what_matters_of_batches_is_covered() -> None:
    """The third has the most tokens and matters; the last has the most scored tokens and is far
    from the largest need."""
    needs = np.array([90, 100, 95, 50])
    tokens, scored = np.array([6, 7, 8, 1]), np.array([3, 3, 2, 9])
    assert heaviest_batches(needs, [tokens, scored], 0.9) == [1, 2]
    assert heaviest_batches(needs, [tokens, scored], 0.0) == [1, 2, 3]
    assert heaviest_batches(needs, [scored], 0.9) == [1]  # as many as the chosen one


def test_the_larger_sizes_are_joined() -> None:
    assert RowSizes(4, 10, 3).joined(RowSizes(2, 11, 3)) == RowSizes(4, 11, 3)
