"""Batches: layout of the three kinds, random access, an order pinned for all machines."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgezo_runtime.data.batches import (
    Batch,
    Batches,
    SequentialBatches,
    heaviest,
    make_batch,
    permutation,
)
from edgezo_runtime.data.example_set import (
    Example,
    ExampleSet,
    Kind,
    LoadReport,
    TruncationReport,
    input_length,
)
from edgezo_runtime.errors import DataError, UsageError
from tests.runtime.tiny_sets import random_set

PAD = 99
ONE_TOKEN_WORDS = ((50,), (51,), (52,))
WORDS = ((50,), (51, 60), (52, 61, 62))


def example_set(
    kind: Kind, sizes: list[int], label_tokens: tuple[tuple[int, ...], ...] = (), max_seq: int = 512
) -> ExampleSet:
    """Examples with tokens 1, 2, ..., of the given input lengths (of the prompt for classes)."""
    examples = []
    for index, size in enumerate(sizes):
        if kind == "completion":
            tokens = np.arange(1, size + 2, dtype=np.int32)
            places = np.arange(max(1, size - 1), size + 1, dtype=np.int32)
            examples.append(Example(index, index + 1, tokens, places))
        else:
            tokens = np.arange(1, size + 1, dtype=np.int32)
            places = np.array([size - 1], np.int32)
            examples.append(Example(index, index + 1, tokens, places, index % len(label_tokens)))
    lengths = [input_length(e, kind, label_tokens) for e in examples]
    return ExampleSet(
        kind=kind,
        examples=tuple(examples),
        path=Path("train.jsonl"),
        sha256="",
        max_seq=max_seq,
        pad_id=PAD,
        report=LoadReport(len(sizes), sum(lengths), max(lengths, default=0), TruncationReport()),
        label_words=tuple(map(str, label_tokens)),
        label_tokens=label_tokens,
    )


def random_sizes(count: int, seed: int = 0) -> list[int]:
    sizes = np.random.Generator(np.random.Philox(seed)).geometric(0.05, count) + 3
    return [int(size) for size in sizes]


def same(a: Batch, b: Batch) -> bool:
    names = [name for name in Batch.__slots__ if name != "kind"]
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def test_labels_layout() -> None:
    batch = make_batch(example_set("labels", [3, 2, 4], ONE_TOKEN_WORDS), [2, 1])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4], [1, 2, PAD, PAD]]
    assert batch.lengths.tolist() == [4, 2]
    assert batch.positions.tolist() == [[0, 3], [1, 1]]
    assert batch.targets.tolist() == [52, 51]
    assert batch.labels.tolist() == [2, 1]
    assert batch.label_ids is not None
    assert batch.label_ids.tolist() == [50, 51, 52]
    assert batch.example_ids.tolist() == batch.ids.tolist() == [2, 1]
    assert batch.row_example.tolist() == [0, 1]
    assert batch.row_keys.tolist() == [2, 1]
    assert (batch.num_examples, batch.num_rows, batch.seq, batch.padding) == (2, 2, 4, 2)


def test_candidates_layout() -> None:
    batch = make_batch(example_set("candidates", [3, 2], WORDS), [1, 0])
    assert batch.input_ids.tolist() == [
        [1, 2, PAD, PAD, PAD],
        [1, 2, 51, PAD, PAD],
        [1, 2, 52, 61, PAD],
        [1, 2, 3, PAD, PAD],
        [1, 2, 3, 51, PAD],
        [1, 2, 3, 52, 61],
    ]
    assert batch.positions.tolist() == [
        [0, 1], [1, 1], [1, 2], [2, 1], [2, 2], [2, 3],
        [3, 2], [4, 2], [4, 3], [5, 2], [5, 3], [5, 4],
    ]  # fmt: skip
    assert batch.targets.tolist() == [50, 51, 60, 52, 61, 62] * 2
    assert batch.row_example.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.example_ids.tolist() == [1, 1, 1, 0, 0, 0]
    assert batch.ids.tolist() == [1, 0]
    assert batch.row_keys.tolist() == [3, 4, 5, 0, 1, 2]
    assert batch.labels.tolist() == [1, 0]
    assert batch.label_ids is None
    assert (batch.num_examples, batch.num_rows) == (2, 6)


def test_completion_layout() -> None:
    batch = make_batch(example_set("completion", [4, 1]), [0, 1])
    assert batch.input_ids.tolist() == [[1, 2, 3, 4], [1, PAD, PAD, PAD]]
    assert batch.positions.tolist() == [[0, 2], [0, 3], [1, 0]]
    assert batch.targets.tolist() == [4, 5, 2]
    assert batch.labels.tolist() == [-1, -1]


@pytest.mark.parametrize("kind", ["labels", "candidates", "completion"])
def test_every_target_follows_its_position(kind: Kind) -> None:
    """Where the target is also an input, it is the next token; every row is scored."""
    words = {"labels": ONE_TOKEN_WORDS, "candidates": WORDS, "completion": ()}[kind]
    batch = make_batch(example_set(kind, [5, 3, 8], words), [0, 1, 2])
    assert sorted(set(batch.positions[:, 0].tolist())) == list(range(batch.num_rows))
    for (row, column), target in zip(batch.positions, batch.targets, strict=True):
        assert column < batch.lengths[row]
        if column + 1 < batch.lengths[row]:
            assert batch.input_ids[row, column + 1] == target
    for name in Batch.__slots__:
        if name not in ("kind", "label_ids"):
            assert getattr(batch, name).dtype == np.int64


def test_pad_to_rounds_up_within_max_seq() -> None:
    examples = example_set("labels", [9, 13], ONE_TOKEN_WORDS, max_seq=14)
    assert make_batch(examples, [0], pad_to=4).seq == 12
    assert make_batch(examples, [1], pad_to=4).seq == 14
    assert make_batch(examples, [1]).seq == 13


def test_any_step_can_be_asked_for() -> None:
    examples = example_set("labels", random_sizes(103), ONE_TOKEN_WORDS)
    in_order = [Batches(examples, 8, seed=5).batch(step) for step in range(40)]
    other = Batches(examples, 8, seed=5)
    for step in (39, 0, 12, 25, 11, 12, 38):
        assert same(other.batch(step), in_order[step])


def test_each_epoch_is_a_new_permutation() -> None:
    batches = Batches(example_set("labels", random_sizes(103), ONE_TOKEN_WORDS), 8, seed=1)
    assert batches.steps_per_epoch == 12
    epochs = [[i for s in range(12) for i in batches.indices(e * 12 + s)] for e in range(30)]
    assert all(len(set(epoch)) == 96 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 30
    seen = Counter(i for epoch in epochs for i in epoch)
    assert len(seen) == 103  # the seven left out are others each time
    assert min(seen.values()) >= 20


def test_seeds_differ_and_zero_is_a_seed() -> None:
    examples = example_set("labels", random_sizes(64), ONE_TOKEN_WORDS)
    orders = {tuple(Batches(examples, 8, seed=seed).indices(0)) for seed in (0, 1, 2, 2**64 - 1)}
    assert len(orders) == 4


def test_golden_order() -> None:
    """The order of the data is part of a run: it must never change."""
    assert permutation(10, 0).tolist() == GOLDEN_PERMUTATION
    batches = Batches(example_set("labels", [5] * 12, ONE_TOKEN_WORDS), 3, seed=7)
    assert [batches.indices(step) for step in range(5)] == GOLDEN_BATCHES


GOLDEN_PERMUTATION = [2, 4, 6, 8, 5, 1, 7, 0, 9, 3]
GOLDEN_BATCHES = [[10, 7, 2], [1, 0, 5], [3, 6, 8], [9, 11, 4], [6, 4, 7]]


@given(st.integers(0, 300), st.integers(0, 2**64 - 1))
def test_permutation_has_every_number_once(count: int, key: int) -> None:
    assert sorted(permutation(count, key).tolist()) == list(range(count))


def test_permutation_is_fair() -> None:
    """Counts of 4 numbers at 4 places over 4,000 keys: chi-squared, 9 degrees, p = 0.999."""
    table = np.zeros((4, 4))
    for key in range(4000):
        table[np.arange(4), permutation(4, key * 0x9E3779B97F4A7C15 % 2**64)] += 1
    assert ((table - 1000) ** 2 / 1000).sum() < 27.9


def padding_share(batches: Batches) -> float:
    made = [batches.batch(step) for step in range(batches.steps_per_epoch)]
    return sum(b.padding for b in made) / sum(b.input_ids.size for b in made)


def test_sorting_in_windows_saves_padding() -> None:
    examples = example_set("labels", random_sizes(1000), ONE_TOKEN_WORDS)
    unsorted = padding_share(Batches(examples, 16, seed=0, window=1))
    windows = padding_share(Batches(examples, 16, seed=0))
    assert unsorted > 0.5
    assert windows < unsorted / 2


def test_windows_are_not_in_order_of_length() -> None:
    """The first batches of an epoch must not be its shortest."""
    batches = Batches(example_set("labels", random_sizes(1024), ONE_TOKEN_WORDS), 16, seed=0)
    lengths = [float(batches.batch(step).lengths.mean()) for step in range(64)]
    assert abs(float(np.corrcoef(np.arange(64), lengths)[0, 1])) < 0.3
    assert lengths[:8] != sorted(lengths[:8])


def test_small_data_makes_a_smaller_batch_with_a_warning() -> None:
    batches = Batches(example_set("completion", [4, 5, 6]), 16, seed=0)
    assert (batches.batch_size, batches.steps_per_epoch) == (3, 1)
    assert sorted(batches.indices(3)) == [0, 1, 2]
    (warning,) = batches.warnings
    assert (warning.name, warning.count) == ("small-data", 3)
    assert "train.jsonl has 3 rows, fewer than the batch size 16" in warning.message
    assert Batches(example_set("completion", [4, 5, 6]), 3, seed=0).warnings == ()


def test_evaluation_sees_every_example_once_longest_first() -> None:
    examples = example_set("candidates", random_sizes(37), WORDS)
    batches = SequentialBatches(examples, 8)
    made = list(batches)
    assert len(made) == len(batches) == 5
    assert sorted(int(i) for b in made for i in b.ids) == list(range(37))
    assert [b.seq for b in made] == sorted((b.seq for b in made), reverse=True)
    assert made[0].seq == examples.report.longest
    assert made[-1].num_examples == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size must be 1 example or more, not 0"),
        ({"pad_to": 0}, "pad_to must be 1 token or more"),
        ({"window": 0}, "window must be 1 batch or more"),
        ({"seed": -1}, "must be 0 to 2"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Batches(example_set("completion", [4]), **({"batch_size": 1, "seed": 0} | options))


def test_bad_step_and_no_rows() -> None:
    with pytest.raises(UsageError, match="step must be 0 or more, not -1"):
        Batches(example_set("completion", [4]), 1, seed=0).batch(-1)
    for make in (lambda s: Batches(s, 1, 0), lambda s: SequentialBatches(s, 1)):
        with pytest.raises(DataError, match=r"train\.jsonl: no rows"):
            make(example_set("completion", []))


def test_first_scored_token_of_each_row() -> None:
    examples = random_set("candidates", (2, 5), 0)
    batch = make_batch(examples, [0, 1])
    assert batch.first_scored.tolist() == [1, 1, 1, 4, 4, 4]


def test_the_heaviest_rows_are_long_or_score_many_tokens() -> None:
    """Of 17 rows of 512 tokens the first four scored few: the scorer took 160 MB more than it had
    taken in the rehearsal."""
    scored = [(9, 1), (12, 2), (12, 8), (3, 3), (11, 9), (12, 4)]
    rows = [
        Example(n, n, np.zeros(size, np.int32), np.arange(size - count, size, dtype=np.int32))
        for n, (size, count) in enumerate(scored)
    ]
    examples = replace(random_set("completion", (5,), PAD), examples=tuple(rows))
    assert heaviest(examples, 1) == [2]  # the longest, and of these the one that scores most
    assert heaviest(examples, 2) == [2, 4]  # scores most of all
    assert heaviest(examples, 3) == [2, 5, 4]
    assert heaviest(examples, 99) == [1, 2, 5, 4, 0, 3]
    assert heaviest(random_set("labels", (4, 9, 4, 9), 0), 3) == [1, 3, 0]
