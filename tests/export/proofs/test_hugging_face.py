"""transformers and PEFT on a tiny model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.proofs import hugging_face
from edgezo_runtime.errors import EdgezoError, MissingExtraError
from edgezo_runtime.evaluation.parity import Sample

SAMPLE = Sample((np.array([5, 6, 7], np.int32), np.array([8, 9], np.int32)), (4, 11), "all")


def test_scores_are_the_last_logits_of_every_row(exported):
    case = exported("llama")
    found = hugging_face.torch_logits(case.folder, "causal-lm", SAMPLE)
    with torch.inference_mode():
        expected = [
            case.model(torch.tensor(row[None].astype(np.int64))).logits[0, -1].numpy()[[4, 11]]
            for row in SAMPLE.rows
        ]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-5)


def test_weights_merged_with_nothing_score_alike(exported):
    folder = exported("llama").folder
    scores = hugging_face.merged_scores(folder, folder, "causal-lm", SAMPLE)
    np.testing.assert_array_equal(scores.tuned, scores.plain)


def test_a_model_that_is_refused(tmp_path):
    with pytest.raises(EdgezoError, match="transformers does not load it"):
        hugging_face.torch_logits(tmp_path, "causal-lm", SAMPLE)


def test_an_adapter_that_is_refused(exported, tmp_path):
    pytest.importorskip("peft")
    with pytest.raises(EdgezoError, match="PEFT does not load it"):
        hugging_face.peft_logits(exported("llama").folder, tmp_path, "causal-lm", SAMPLE)


def test_a_package_that_is_not_installed(monkeypatch, tmp_path):
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(hugging_face, "import_module", absent)
    with pytest.raises(MissingExtraError, match="pip install torch"):
        hugging_face.torch_logits(tmp_path, "causal-lm", SAMPLE)
