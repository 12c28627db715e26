"""Scores of label words against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.graphs.label_scorer import lower_label_scorer
from tests.export.graph_runner import run
from tests.export.tiny_models import HIDDEN


@pytest.mark.parametrize(("quant", "tolerance"), [("fp32", 1e-5), ("int8", 0.1)])
def test_scores_are_the_logits_of_the_labels(parts, tmp_path, quant, tolerance):
    draft = lower_label_scorer(parts.cut.epilogue, parts.checkpoint, quant, HIDDEN)
    hidden = np.random.default_rng(0).normal(0, 1, (2, 5, HIDDEN)).astype(np.float32)
    positions, labels = np.array([[0, 4], [1, 0], [1, 2]]), np.array([7, 9])
    feed = {"hidden": hidden, "positions": positions, "label_ids": labels}
    found = run(draft, feed, parts.model, tmp_path)["label_logits"]
    states = torch.tensor(hidden[positions[:, 0], positions[:, 1]])
    with torch.inference_mode():
        logits = parts.model.lm_head(parts.model.model.norm(states)).numpy()
    np.testing.assert_allclose(found, logits[:, labels], atol=tolerance)
