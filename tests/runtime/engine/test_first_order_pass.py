"""Parts that go back together, and sums that do not depend on which part ends first."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.chunks import Chunk
from edgezo_runtime.engine.first_order_pass import (
    PART_ANSWERS,
    ExampleCutter,
    OrderedSums,
    answers_of_part,
    longest_first,
)
from tests.runtime.tiny_bundle import make_manifest
from tests.runtime.tiny_sets import LABEL_TOKENS, random_set

SIZES = (2, 5, 9, 21, 1, 13, 16, 17, 30, 33, 8, 3)


@pytest.mark.parametrize("kind", LABEL_TOKENS)
@pytest.mark.parametrize("part_tokens", [1, 40, 100, 10_000])
def test_parts_hold_whole_examples(kind, part_tokens) -> None:
    batch = make_batch(random_set(kind, SIZES, 0), range(len(SIZES)))
    parts = ExampleCutter(part_tokens, 64).cut(batch)
    assert np.concatenate([part.index for part in parts]).tolist() == list(range(batch.num_rows))
    scored = [place for part in parts for place in range(part.scored.start, part.scored.stop)]
    assert scored == list(range(len(batch.targets)))
    seen: set[int] = set()
    for part in parts:
        examples = {*batch.row_example[part.index].tolist()}
        assert not seen & examples
        seen |= examples
        assert part.tokens % 2 == 0
        assert part.tokens >= batch.lengths[part.index].max()
        assert len(examples) == 1 or part.rows * part.tokens <= part_tokens
        positions = batch.positions[part.scored]
        np.testing.assert_array_equal(part.index[part.positions[:, 0]], positions[:, 0])
        np.testing.assert_array_equal(part.positions[:, 1], positions[:, 1])


def test_last_tokens_go_back_in_equal_parts() -> None:
    batch = make_batch(random_set("labels", (4,) * (PART_ANSWERS + 3), 0), range(PART_ANSWERS + 3))
    first, second = ExampleCutter(7, 64).answers(batch, 8)
    assert (first.tokens, first.rows, len(first.positions)) == (1, 18, 18)
    assert second.index.tolist() == [*range(18, 35), 34]  # an odd last one comes twice
    assert len(second.positions) == 17


@pytest.mark.parametrize(
    ("longest", "megabytes", "expected"),
    [(512, 0.023, 4), (64, 0.023, 32), (4096, 0.023, 2), (512, 0, 32)],
)
def test_keys_and_values_limit_the_last_tokens_of_a_part(
    longest: int, megabytes: float, expected: int
) -> None:
    """SmolLM2's 23 kB per token; 64 MiB hold 5 prompts of 512 tokens, of which 4 are taken."""
    assert answers_of_part(longest, int(megabytes * 1e6), PART_ANSWERS) == expected


@pytest.mark.parametrize(("rows", "expected"), [(12, 12), (13, 8), (16, 8), (25, 10), (1, 2)])
def test_parts_are_equal(rows: int, expected: int) -> None:
    """12 prompts of 230 tokens fit in 64 MiB."""
    assert answers_of_part(230, 23_000, rows) == expected


def test_virtual_tokens_count() -> None:
    manifest = make_manifest({})
    assert ExampleCutter.of(manifest, 7) == ExampleCutter(7, manifest.model.max_seq)


def test_sums_are_in_the_order_of_the_parts() -> None:
    """float64 sums of numbers whose order shows in the last bits."""
    parts = [Chunk(np.array([n]), 2, np.empty((0, 2), np.int64), slice(0)) for n in range(4)]
    values = np.array([1e16, 1.0, -1e16, 1.0], np.float32)
    expected = np.float64(0)
    for value in values:
        expected += np.float64(value)
    for order in itertools.permutations(range(4)):
        sums = OrderedSums()
        assert sums.begin(parts) is parts
        for number in order:
            sums.add(parts[number], 0, {"a": values[number : number + 1]})
        assert sums.total["a"].dtype == np.float64
        assert sums.total["a"][0] == expected
        assert not sums._waiting


def test_a_pass_that_runs_again_forgets_the_first_one() -> None:
    parts = [Chunk(np.array([n]), 2, np.empty((0, 2), np.int64), slice(0)) for n in range(2)]
    sums, one = OrderedSums(), np.ones(1, np.float32)
    sums.begin(parts)
    sums.add(parts[0], 0, {"a": one})
    sums.begin(parts)
    sums.add(parts[1], 0, {"b": 3 * one})
    assert sums.total == {}  # the first part is to come
    sums.add(parts[0], 0, {"a": 2 * one})
    assert {name: value[0] for name, value in sums.total.items()} == {"a": 2, "b": 3}


def test_a_block_does_not_wait_for_another() -> None:
    """Gradients of one block are held until earlier parts are through it, not through all."""
    parts = [Chunk(np.array([n]), 2, np.empty((0, 2), np.int64), slice(0)) for n in range(2)]
    sums, one = OrderedSums(), np.ones(1, np.float32)
    sums.begin(parts)
    sums.add(parts[0], 1, {"b": one})
    sums.add(parts[1], 1, {"b": 2 * one})
    assert sums.total["b"][0] == 3
    assert not sums._waiting
    sums.add(parts[1], 0, {"a": 4 * one})
    assert "a" not in sums.total
    sums.add(parts[0], 0, {"a": 8 * one})
    assert sums.total["a"][0] == 12


def test_the_longest_parts_begin() -> None:
    """By tokens, then by the length of a row; equal ones as they are in the batch."""
    sizes = ((1, 4), (2, 8), (1, 16), (4, 2), (1, 4))
    parts = [Chunk(np.arange(rows), n, np.empty((0, 2), np.int64), slice(0)) for rows, n in sizes]
    order = [parts.index(part) for part in longest_first(parts)]
    assert order == [2, 1, 3, 0, 4]
