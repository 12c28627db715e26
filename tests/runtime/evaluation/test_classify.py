"""Classes of rows are the softmax of the scores of their label words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.evaluation.classify import classify
from tests.runtime.tiny_sets import random_set

SIZES = (4, 9, 2, 7, 5)


class Scored:
    """An engine whose scores are a table by the example."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores
        self.batches: list[int] = []

    def score(self, batch: Any, params: Any, *, scope: str) -> np.ndarray:
        assert scope == "answer"
        self.batches.append(batch.num_examples)
        return self.scores[batch.ids][None]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_most_probable_word_in_the_order_of_the_rows(batch_size: int) -> None:
    examples = random_set("labels", SIZES, 0)
    scores = np.random.default_rng(0).normal(0, 3, (5, 3)).astype(np.float32)
    scores[1] = 800 * scores[1]  # no overflow
    engine: Any = Scored(scores)
    found = classify(engine, {}, examples, batch_size, scope="answer")
    assert sum(engine.batches) == 5
    assert max(engine.batches) <= batch_size
    z = scores.astype(np.float64)
    shares = np.exp(z - z.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    for row, prediction in enumerate(found):
        assert prediction.index == scores[row].argmax()
        assert prediction.label == examples.label_words[prediction.index]
        assert prediction.probabilities == pytest.approx(shares[row].tolist())
        assert sum(prediction.probabilities) == pytest.approx(1)


def test_rows_without_label_words_have_no_class() -> None:
    engine: Any = Scored(np.zeros((1, 1)))
    with pytest.raises(UsageError, match="no class; give a template and labels"):
        classify(engine, {}, random_set("completion", SIZES, 0), scope="all")
