"""Graphs of a float32 bundle against torch, in odd sizes; `tests/models` has every architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.derivatives import backward_graphs as backward
from edgezo_export.export import ExportConfig, export_bundle
from edgezo_export.graphs import token_scorer
from tests.export.block_parity import assert_close, bundle_mask, inputs, torch_states
from tests.export.bundle_runner import BundleRunner
from tests.export.tiny_models import VOCAB


@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("name", ["llama", "gpt2", "roberta"])
def test_one_row_of_few_tokens(exported, name, tokens):
    case = exported(name)
    ids, mask = (array[:1, :tokens] for array in inputs(case))
    expected, _ = torch_states(case, ids, mask)
    found = list(case.bundle("fp32").hidden_states(ids, bundle_mask(case, mask)))
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quant", "chunk", "tolerance"),
    # 97 tokens: three whole chunks and seven tokens, or all in one chunk, whose scales then come
    # in two shapes. int8: a weight is off by up to 1/254 of the largest of its row
    [
        ("fp32", 30, 1e-5),
        pytest.param("int8", 30, 0.15, marks=pytest.mark.slow),
        pytest.param("int8", 4096, 0.15, marks=pytest.mark.slow),
    ],
)
def test_log_probs_of_a_vocabulary_in_chunks(
    exported, tmp_path, monkeypatch, quant, chunk, tolerance
):
    for module in (token_scorer, backward):
        monkeypatch.setattr(module, "CHUNK", chunk)
    case = exported("llama")
    hidden = np.random.default_rng(2).normal(0, 3, (2, 5, case.model.config.hidden_size))
    hidden = hidden.astype(np.float32)
    positions = np.array([(row, token) for row in range(2) for token in range(5)])
    targets = np.array([0, 29, 30, 59, 60, 89, 90, 96, 45, 7])
    with torch.inference_mode():
        states = case.model.model.norm(torch.tensor(hidden))
        logits = torch.log_softmax(case.model.lm_head(states), -1).reshape(10, VOCAB).numpy()
    export_bundle(str(case.folder), tmp_path / quant, ExportConfig(quant=quant))
    found = BundleRunner(tmp_path / quant).log_probs(hidden, positions, targets)
    np.testing.assert_allclose(found, logits[np.arange(10), targets], atol=tolerance)
