"""How far two programs are apart on the same rows."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.errors import DivergedError
from edgezo_runtime.evaluation.parity import (
    Agreement,
    Scores,
    draw_sample,
    last_logits,
    own_scores,
    sample_of,
)
from tests.runtime.small_adapters import LORA, LORA_SHAPES, small_adapter
from tests.runtime.tiny_sets import ONE_TOKEN_WORDS, random_set

PLAIN = np.zeros((2, 2), np.float32)
EFFECT = np.array([[3, 4], [0, 0]], np.float32)


def test_the_same_scores_agree() -> None:
    found = Agreement.of(Scores(EFFECT, PLAIN), Scores(EFFECT, PLAIN))
    assert (found.rows, found.scores) == (2, 4)
    assert found.effect == 2.5  # root of (9 + 16) / 4
    assert (found.largest, found.difference, found.relative, found.base, found.same) == (
        (0, 0, 0, 0, 1)
    )


def test_another_base_model_cancels() -> None:
    """A shift of every score, with the adapter and without, is no fault of the adapter."""
    found = Agreement.of(Scores(EFFECT, PLAIN), Scores(EFFECT + 2, PLAIN + 2))
    assert (found.largest, found.difference, found.relative, found.base) == (2, 2, 0, 2)


def test_half_an_adapter_is_half_apart() -> None:
    other = np.array([[1.5, 2], [1, 0]], np.float32)
    found = Agreement.of(Scores(EFFECT, PLAIN), Scores(other, PLAIN))
    expected = np.sqrt((1.5**2 + 2**2 + 1) / 4) / 2.5
    assert found.relative == pytest.approx(expected)
    assert found.same == 1  # the first of equals
    assert found.largest == 2


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_scores_that_are_no_numbers_prove_nothing(bad: float) -> None:
    with pytest.raises(DivergedError, match="not finite"):
        Agreement.of(Scores(EFFECT, PLAIN), Scores(EFFECT + np.float32(bad), PLAIN))


def test_an_adapter_without_effect_proves_nothing() -> None:
    with pytest.raises(DivergedError, match="changes no score"):
        Agreement.of(Scores(PLAIN, PLAIN), Scores(EFFECT, PLAIN))


def test_drawn_rows_are_always_the_same_and_invoke_once() -> None:
    adapter = small_adapter(LORA, LORA_SHAPES, scope="answer", invocation=(42,))
    one, other = (draw_sample(adapter, 97) for _ in range(2))
    np.testing.assert_array_equal(one.rows, other.rows)
    assert one.label_ids == other.label_ids
    assert len(set(one.label_ids)) == len(one.label_ids)
    assert one.answers
    for row in one.rows:
        assert (row == 42).tolist() == [False] * (len(row) - 1) + [True]


def test_rows_of_a_set_end_where_their_answers_begin() -> None:
    examples = random_set("labels", (4, 9, 2), 0)
    sample = sample_of(small_adapter(LORA, LORA_SHAPES), examples, 97)
    for row, example in zip(sample.rows, examples, strict=True):
        np.testing.assert_array_equal(row, example.tokens)
    assert sample.label_ids[:3] == tuple(word[0] for word in ONE_TOKEN_WORDS)
    assert len(set(sample.label_ids)) == len(sample.label_ids)


def test_logits_of_the_labels_are_picked() -> None:
    sample = draw_sample(small_adapter(LORA, LORA_SHAPES), 97)
    rows = np.random.default_rng(0).normal(size=(8, 97)).astype(np.float32)
    found = last_logits(list(rows), sample)
    np.testing.assert_array_equal(found, rows[:, list(sample.label_ids)])


def test_own_scores_are_the_engines(bundle) -> None:
    engine, plain = Engine(bundle), bundle.trainables()
    moved = {name: value + np.float32(0.1) for name, value in plain.items()}
    labels = tuple((label,) for label in range(20, 52))
    examples = random_set("labels", (4, 9, 2), 0, labels=labels)
    sample = sample_of(small_adapter(LORA, LORA_SHAPES), examples, 97)
    assert sample.label_ids == tuple(range(20, 52))
    found = own_scores(engine, moved, plain, sample)
    batch = make_batch(examples, range(3))
    for values, scores in ((moved, found.tuned), (plain, found.plain)):
        np.testing.assert_array_equal(engine.score(batch, SharedParams(values))[0], scores)
