"""Losses and scores of a set, from scores that are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.data.questions import Question, QuestionSet
from edgezo_runtime.evaluation.class_f1 import macro_f1
from edgezo_runtime.evaluation.evaluate import evaluate, evaluate_answers
from edgezo_runtime.generation.generator import GenerationConfig
from tests.runtime.tiny_sets import random_set

SIZES = (4, 9, 2, 7, 5)


class LabelScores:
    """An engine whose scores are a table by the example."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def score(self, batch: Any, params: Any, *, scope: str) -> np.ndarray:
        return self.scores[batch.ids][None]


class TokenScores:
    """An engine that gives every token minus its place."""

    def score(self, batch: Any, params: Any, *, scope: str) -> np.ndarray:
        return -batch.positions[:, 1].astype(np.float32)[None]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_classes(batch_size: int) -> None:
    examples = random_set("labels", SIZES, 0)
    labels = np.array([example.label for example in examples])
    scores = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    engine: Any = LabelScores(scores)
    told: list[tuple[int, int]] = []
    found = evaluate(engine, {}, examples, batch_size, lambda *rows: told.append(rows), scope="all")
    z = scores.astype(np.float64)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(5), labels]
    np.testing.assert_allclose(found.losses, losses)
    assert found.loss == pytest.approx(losses.mean())
    np.testing.assert_array_equal(found.predictions, scores.argmax(axis=1))
    assert found.accuracy == np.mean(scores.argmax(axis=1) == labels)
    assert found.f1 == macro_f1(labels, scores.argmax(axis=1), 3)
    assert found.token_loss is None
    assert told[-1] == (5, 5)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_completions(batch_size: int) -> None:
    """A loss per example is a mean over its tokens; the loss per token counts each token once."""
    examples = random_set("completion", SIZES, 0)
    engine: Any = TokenScores()
    found = evaluate(engine, {}, examples, batch_size, scope="all")
    # `places` name the scored tokens, each of which the token before it predicts.
    expected = [example.places.astype(np.float64) - 1 for example in examples]
    np.testing.assert_allclose(found.losses, [places.mean() for places in expected])
    assert found.token_loss == pytest.approx(np.concatenate(expected).mean())
    assert (found.accuracy, found.f1, found.predictions.size) == (None, None, 0)


def test_answers() -> None:
    examples = random_set("completion", SIZES[:3], 0)
    asked = (
        Question((1,), ("a red fox",), {}),
        Question((2,), ("seven", "7"), {}),
        Question((3,), ("blue",), {}),
    )
    tokenizer: Any = None
    questions = QuestionSet(examples, asked, tokenizer)

    def generate(prompts: Any, params: Any, config: Any, progress: Any) -> list[Any]:
        assert prompts == [(1,), (2,), (3,)]
        assert config == GenerationConfig(4)
        texts = (" The red dog", "7\n", "green")
        return [SimpleNamespace(stream=SimpleNamespace(text=text)) for text in texts]

    generator: Any = SimpleNamespace(generate=generate)
    found = evaluate_answers(generator, {}, questions, GenerationConfig(4))
    assert found.answers == ("The red dog", "7", "green")
    assert found.rows == 3
    assert found.exact_match == pytest.approx(1 / 3)
    assert found.f1 == pytest.approx((1 / 2 + 1 + 0) / 3)  # one of two words, without articles
