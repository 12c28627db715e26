"""Losses of pairs against torch."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.engine.losses import class_scores, example_losses, score_gradients
from edgezo_runtime.engine.pair_losses import TEMPERATURE
from edgezo_runtime.errors import UsageError

WIDTH = 5


def batch_of(*texts: int) -> Batch:
    """Pairs whose second texts are these single tokens."""
    count = len(texts)
    ids = np.full((2 * count, 2), 9)
    ids[1::2, 0] = texts
    lengths = np.tile([2, 1], count)
    rows = np.arange(2 * count)
    return Batch(
        kind="pairs",
        example_ids=rows // 2,
        input_ids=ids,
        lengths=lengths,
        positions=np.stack([rows, lengths - 1], axis=1),
        targets=np.zeros(2 * count, np.int64),
        label_ids=np.arange(WIDTH),
        row_example=rows // 2,
        labels=np.full(count, -1),
    )


def embeddings(count: int, groups: int = 1) -> np.ndarray:
    made = np.random.default_rng(0).normal(size=(groups, 2 * count, WIDTH))
    return (made / np.linalg.norm(made, axis=-1, keepdims=True)).astype(np.float32)


def test_losses_and_gradients_are_those_of_torch():
    torch = pytest.importorskip("torch")
    batch, scores = batch_of(1, 2, 3), embeddings(3)
    vectors = torch.tensor(scores[0].astype(np.float64), requires_grad=True)
    z = vectors[0::2] @ vectors[1::2].T / TEMPERATURE
    losses = torch.nn.functional.cross_entropy(z, torch.arange(3), reduction="none")
    losses.sum().backward()
    np.testing.assert_allclose(example_losses(batch, scores)[0], losses.detach(), rtol=1e-6)
    np.testing.assert_allclose(score_gradients(batch, scores[0]), vectors.grad, rtol=1e-4)


def test_the_same_text_is_no_wrong_answer():
    scores = embeddings(3)
    alone = example_losses(batch_of(1, 3), scores[:, [0, 1, 4, 5]])
    twice = example_losses(batch_of(1, 1, 3), scores)
    assert twice[0, 0] == pytest.approx(alone[0, 0])


def test_groups_are_apart():
    scores = embeddings(3, groups=2)
    found = example_losses(batch_of(1, 2, 3), scores)
    assert found.shape == (2, 3)
    np.testing.assert_array_equal(found[1], example_losses(batch_of(1, 2, 3), scores[1:])[0])


def test_other_shapes_are_refused():
    with pytest.raises(UsageError, match="embeddings have shape"):
        example_losses(batch_of(1, 2), embeddings(3))
    with pytest.raises(UsageError, match="no classes"):
        class_scores(batch_of(1, 2), embeddings(2))
