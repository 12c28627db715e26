"""Log-probabilities of tokens against torch, whatever the size of a chunk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.graphs import token_scorer
from tests.export.graph_runner import run
from tests.export.tiny_models import HIDDEN


@pytest.mark.parametrize("chunk", [10, 4096])
def test_log_probs_are_those_of_torch(parts, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(token_scorer, "CHUNK", chunk)
    draft = token_scorer.lower_token_scorer(parts.cut.epilogue, parts.checkpoint, "fp32", HIDDEN)
    hidden = np.random.default_rng(0).normal(0, 1, (2, 5, HIDDEN)).astype(np.float32)
    positions, targets = np.array([[0, 4], [1, 0], [1, 2]]), np.array([0, 50, 96])
    feed = {"hidden": hidden, "positions": positions, "targets": targets}
    found = run(draft, feed, parts.model, tmp_path)["log_probs"]
    states = torch.tensor(hidden[positions[:, 0], positions[:, 1]])
    with torch.inference_mode():
        logits = parts.model.lm_head(parts.model.model.norm(states))
    expected = torch.log_softmax(logits, -1).numpy()[np.arange(3), targets]
    np.testing.assert_allclose(found, expected, atol=1e-5)
