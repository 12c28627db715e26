"""Rows held out to evaluate on: how many, which, and that they are the same every time."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.hold_out import HoldOut, divide, hold_out
from edgezo_runtime.data.questions import Question, QuestionSet
from tests.runtime.tiny_sets import random_set
from tests.runtime.tiny_tokenizer import byte_tokenizer


def rows_of(count: int, kinds: int | None = None) -> list[bytes]:
    """Rows, of so many different contents."""
    return [f"row {number % (kinds or count)}".encode() for number in range(count)]


def content(rows: list[bytes], found: HoldOut) -> list[bytes]:
    return sorted(rows[index] for index in found.held_out)


@pytest.mark.parametrize(
    ("count", "held_out"), [(60, 20), (100, 20), (200, 20), (333, 33), (2000, 200), (9000, 200)]
)
def test_how_many(count: int, held_out: int) -> None:
    found = hold_out(rows_of(count), [-1] * count, 0)
    assert len(found.held_out) == held_out
    assert not found.reason
    assert sorted(found.train + found.held_out) == list(range(count))


@pytest.mark.parametrize("count", [0, 1, 20, 59])
def test_too_few(count: int) -> None:
    found = hold_out(rows_of(count), [-1] * count, 0)
    assert found.held_out == ()
    assert found.train == tuple(range(count))
    assert f"{count} rows are too few" in found.reason


def test_the_seed_chooses() -> None:
    rows = rows_of(300)
    one, same, other = (hold_out(rows, [-1] * 300, seed) for seed in (0, 0, 1))
    assert one == same
    assert len({*one.held_out} & {*other.held_out}) < 15


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows, classes = rows_of(300), [number % 3 for number in range(300)]
    order = list(range(300))
    random.Random(1).shuffle(order)
    shuffled = hold_out([rows[n] for n in order], [classes[n] for n in order], 7)
    held_out = {order[index] for index in shuffled.held_out}
    assert held_out == {*hold_out(rows, classes, 7).held_out}


@pytest.mark.parametrize("seed", range(20))
def test_any_rows(seed: int) -> None:
    """Duplicates stay together, classes keep rows and their share, and the numbers are kept."""
    draw = random.Random(seed)
    count, kinds = draw.randrange(60, 1500), draw.randrange(30, 600)
    names = [draw.randrange(kinds) for _ in range(count)]
    rows = [str(name).encode() for name in names]
    weights = [draw.random() ** 3 + 0.01 for _ in range(draw.randrange(1, 6))]
    of_kind = draw.choices(range(len(weights)), weights, k=kinds)
    classes = [of_kind[name] for name in names]
    found = hold_out(rows, classes, seed)
    train, held_out = {*found.train}, {*found.held_out}
    assert train | held_out == set(range(count))
    assert not train & held_out
    assert not {rows[n] for n in train} & {rows[n] for n in held_out}
    assert {classes[n] for n in train} == {*classes}
    wanted = min(200, max(20, round(count / 10)))
    assert (20 <= len(held_out) <= wanted) or (not held_out and found.reason)
    largest = max(Counter(rows).values())
    if held_out:
        own = Counter(classes[n] for n in held_out)
        for label, size in Counter(classes).items():
            # A group that does not fit leaves up to its size to other classes.
            slack = 1 + largest * len(weights)
            assert abs(own[label] - size * wanted / count) <= slack


def test_classes_are_held_out_in_proportion() -> None:
    rows, classes = rows_of(1000), [0] * 700 + [1] * 290 + [2] * 10
    found = hold_out(rows, classes, 3)
    assert Counter(classes[n] for n in found.held_out) == {0: 70, 1: 29, 2: 1}


def test_a_class_of_one_row_is_tuned_on() -> None:
    rows, classes = rows_of(60), [0] * 59 + [1]
    for seed in range(20):
        assert 59 in hold_out(rows, classes, seed).train


def test_rows_that_are_all_the_same_are_not_divided() -> None:
    found = hold_out(rows_of(100, kinds=2), [-1] * 100, 0)
    assert found.held_out == ()
    assert "too many of the 100 rows are the same" in found.reason


def test_the_choice_of_this_version() -> None:
    """Pins the rows: a run that resumes with another version must find the same ones."""
    rows = rows_of(60)
    ranks = {n: hashlib.sha256(b"hold out 5\n" + rows[n]).digest() for n in range(60)}
    expected = []
    for label in range(2):
        expected += sorted((n for n in range(60) if n % 2 == label), key=ranks.__getitem__)[:10]
    found = hold_out(rows, [n % 2 for n in range(60)], 5)
    assert found.held_out == tuple(sorted(expected))
    assert found.held_out[:6] == (1, 2, 3, 4, 10, 18)


# --- examples ---


def test_a_set_is_divided() -> None:
    examples = random_set("labels", [4 + n % 5 for n in range(90)], 0)
    train, held_out, reason = divide(examples, 0)
    assert held_out is not None
    assert (len(train), len(held_out), train.held_out, held_out.held_out) == (70, 20, 20, 0)
    assert reason == ""
    lines = [example.line for part in (train, held_out) for example in part]
    assert sorted(lines) == list(range(1, 91))
    for part in (train, held_out):
        assert [example.example_id for example in part] == list(range(len(part)))
        for example in part:
            assert np.array_equal(example.tokens, examples.examples[example.line - 1].tokens)
    assert held_out.report.rows == 20
    assert held_out.report.longest == held_out.lengths().max()
    assert train.tokens_sha256() != examples.tokens_sha256()


def test_a_prompt_with_two_classes_is_on_one_side() -> None:
    """An evaluation on a prompt that was trained on shows what was memorized."""
    examples = random_set("labels", [6] * 80, 0)
    twice = [replace(e, label=1 - e.label) for e in examples if e.label < 2]
    train, held_out, _ = divide(examples.plus(twice), 0)
    assert held_out is not None
    prompts = [{e.tokens.tobytes() for e in part} for part in (train, held_out)]
    assert not prompts[0] & prompts[1]


def test_few_examples_stay_as_they_are() -> None:
    examples = random_set("completion", [5] * 30, 0)
    train, held_out, reason = divide(examples, 0)
    assert (train, held_out) == (examples, None)
    assert "30 rows" in reason


def test_questions_stay_with_their_examples() -> None:
    examples = random_set("completion", [5] * 100, 0)
    questions = tuple(Question((n,), (str(n),), {"n": n}) for n in range(100))
    train, held_out, _ = divide(QuestionSet(examples, questions, byte_tokenizer()), 0)
    assert held_out is not None
    assert (len(train), len(held_out)) == (80, 20)
    for part in (train, held_out):
        for example, question in zip(part.examples, part.questions, strict=True):
            assert question.prompt == (example.line - 1,)


def test_a_set_says_how_many_rows_it_lacks() -> None:
    examples = random_set("labels", [4] * 60, 0)
    assert isinstance(examples, ExampleSet)
    assert examples.held_out == 0
    assert divide(examples, 0)[0].held_out == 20
