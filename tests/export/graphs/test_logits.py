"""Logits of the whole vocabulary against torch, whatever the size of a chunk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.graphs import logits
from tests.export.graph_runner import run
from tests.export.tiny_models import HIDDEN


@pytest.mark.parametrize("chunk", [10, 4096])
def test_logits_are_those_of_torch(parts, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(logits, "CHUNK", chunk)
    draft = logits.lower_logits(parts.cut.epilogue, parts.checkpoint, "fp32", HIDDEN)
    hidden = np.random.default_rng(0).normal(0, 1, (2, 5, HIDDEN)).astype(np.float32)
    positions = np.array([[0, 4], [1, 0], [1, 2]])
    found = run(draft, {"hidden": hidden, "positions": positions}, parts.model, tmp_path)["logits"]
    states = torch.tensor(hidden[positions[:, 0], positions[:, 1]])
    with torch.inference_mode():
        expected = parts.model.lm_head(parts.model.model.norm(states)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
