"""Checkpoints that contradict their config or tokenizer, against transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from edgezo_export.export import ExportConfig, export_bundle
from edgezo_export.quantization.quantize import NonFiniteWeightError
from edgezo_export.schemes import make_scheme
from tests.export.bundle_runner import BundleRunner
from tests.export.log_prob_parity import own_log_probs, torch_log_probs
from tests.export.tiny_models import TINY, VOCAB, save

IDS = np.random.default_rng(0).integers(4, VOCAB, 20).tolist()


def change(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Put tensors into a checkpoint."""
    file = folder / "model.safetensors"
    save_file(load_file(file) | tensors, file, metadata={"format": "pt"})


def told_by(export) -> list[str]:
    told: list[str] = []
    export(told.append)
    return told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head"),
    [("llama-tied", "lm_head.weight"), ("bert", "cls.predictions.decoder.weight")],
)
def test_a_trained_head_beside_a_config_that_ties_it(tmp_path, name, head):
    model = TINY[name].build()
    folder = save(model, tmp_path / "model")
    embedding = model.get_input_embeddings().weight.detach()
    change(folder, {head: embedding.flip(0).contiguous()})
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    config = ExportConfig(quant="fp32")
    told = told_by(lambda warn: export_bundle(str(folder), tmp_path / "b", config, warn=warn))
    assert len(told) == 1
    assert f"ties {head} to " in told[0]
    runner = BundleRunner(tmp_path / "b")
    assert not runner.manifest.model.tied_embeddings
    reference = type(model).from_pretrained(folder)
    found, expected = own_log_probs(runner, IDS), torch_log_probs(reference, IDS)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(expected - torch_log_probs(model, IDS)).max() > 0.5  # the head matters


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "bert"])
def test_a_tokenizer_with_more_tokens_than_the_model(tmp_path, name):
    model = TINY[name].build()
    folder = save(model, tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool>", "<result>"])
    tokenizer.save_pretrained(folder)
    config = ExportConfig(quant="fp32")
    told = told_by(lambda warn: export_bundle(str(folder), tmp_path / "b", config, warn=warn))
    assert len(told) == 1
    assert told[0].startswith(f"the tokenizer has {VOCAB + 2} tokens, the model {VOCAB}: 2 rows")
    runner = BundleRunner(tmp_path / "b")
    assert runner.manifest.model.vocab_size == VOCAB + 2
    model.resize_token_embeddings(VOCAB + 2)
    with torch.no_grad():  # without the noise that transformers adds to the mean
        for table in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            table[VOCAB:] = table[:VOCAB].mean(0)
    ids = [*IDS, VOCAB, VOCAB + 1]
    expected = torch_log_probs(model, ids)
    np.testing.assert_allclose(own_log_probs(runner, ids), expected, atol=2e-5)


@pytest.mark.slow
def test_weights_that_are_not_finite_are_refused(tmp_path):
    folder = save(TINY["llama"].build(), tmp_path / "model")
    name = "model.layers.1.mlp.down_proj.weight"
    bad = load_file(folder / "model.safetensors")[name]
    bad[3, :5] = torch.inf
    change(folder, {name: bad})
    for kind in ("lora", "last-layers"):  # frozen, and as an initial value
        config = ExportConfig(quant="fp32", scheme=make_scheme(kind, {}))
        with pytest.raises(NonFiniteWeightError, match=r"'model\.layers\.1\.mlp\.down_proj.* 5 of"):
            export_bundle(str(folder), tmp_path / "b", config)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
def test_a_second_head_is_told(tmp_path):
    model = TINY["llama-tied"].build()
    folder = save(model, tmp_path / "model")
    embedding = model.get_input_embeddings().weight.detach()
    change(folder, {"lm_head.weight": embedding.clone(), "medusa.weight": embedding.clone()})
    told = told_by(lambda warn: export_bundle(str(folder), tmp_path / "b", warn=warn))
    assert len(told) == 1
    assert told[0].startswith("1 tensors of the checkpoint with a row per token are not used, ")
    assert "'medusa.weight'" in told[0]
