"""Pooled states of texts against numpy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.text_embedding import lower_embedding_scorers
from edgezo_export.trace.partition import Segment
from tests.export.graph_runner import run

STATES = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
POSITIONS = np.array([[0, 3], [1, 1], [1, 0]])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_numbers_of_embeddings(pooling):
    nothing = Segment((), None, ir.Value(name="hidden"))
    labels, tokens = lower_embedding_scorers(nothing, Checkpoint({}, {}, 5), 3, pooling)
    pooled = np.stack(
        [
            STATES[row, : place + 1].mean(0) if pooling == "mean" else STATES[row, 0]
            for row, place in POSITIONS
        ]
    )
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    feed = {"hidden": STATES, "positions": POSITIONS}
    found = run(labels, feed | {"label_ids": np.array([2, 0])})["label_logits"]
    np.testing.assert_allclose(found, expected[:, [2, 0]], atol=1e-6)
    found = run(tokens, feed | {"targets": np.array([1, 0, 2])})["log_probs"]
    np.testing.assert_allclose(found, expected[[0, 1, 2], [1, 0, 2]], atol=1e-6)


def test_no_state_at_all_stays_finite():
    nothing = Segment((), None, ir.Value(name="hidden"))
    labels, _ = lower_embedding_scorers(nothing, Checkpoint({}, {}, 5), 3, "mean")
    feed = {"hidden": 0 * STATES, "positions": POSITIONS, "label_ids": np.arange(3)}
    assert not run(labels, feed)["label_logits"].any()
