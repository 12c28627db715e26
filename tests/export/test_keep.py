"""`quant` keep: bundles with the codes of a checkpoint compute what its float32 weights compute."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from edgezo_export.export import ExportConfig, export_bundle
from edgezo_runtime.bundle.bundle import WEIGHTS_FILE, Bundle
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.errors import EdgezoError, UsageError
from tests.export.bundle_runner import BundleRunner
from tests.export.quantized_models import (
    PACKINGS,
    tiny_llama,
    tiny_mixtral,
    write_folder,
    write_mixed_gguf,
)
from tests.export.tiny_model import save
from tests.runtime.tiny_sets import random_set
from tests.runtime.torch_lora import TorchLora
from tests.runtime.written_texts import moved

IDS = np.random.default_rng(0).integers(3, 97, (3, 11))
KEEP = ExportConfig(quant="keep")
STORED = ("codes8", "codes4", "codes2", "codes1", "nf4")


def check(model, folder, output) -> None:
    """Log-probabilities and exact gradients are those of torch with the dequantized weights."""
    export_bundle(str(folder), output, KEEP)
    runner = BundleRunner(output)
    assert runner.manifest.quant == "keep"
    *_, hidden = runner.hidden_states(IDS)
    with torch.no_grad():
        logits = model(torch.tensor(IDS)).logits
    positions = np.argwhere(np.ones_like(IDS))
    targets = np.arange(len(positions)) % 97
    expected = torch.log_softmax(logits, -1).numpy()[(*positions.T, targets)]
    found = runner.log_probs(hidden, positions, targets)
    # Both sums are rounded to float32, of logits of up to 20.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=3e-5)
    bundle = Bundle.open(output)
    theta = moved(bundle)
    reference = TorchLora(model, bundle, "eager")
    batch = make_batch(random_set("completion", (5, 9, 12), 0), range(3))
    result = FirstOrderGradient(Engine(bundle, threads=1), 0).gradient(batch, theta)
    loss, gradients = reference.gradient(theta, batch)
    assert result.losses.mean() == pytest.approx(loss, abs=2e-5)
    assert result.gradients
    for name, grad in result.gradients.items():
        largest = np.abs(gradients[name]).max()
        assert np.abs(grad - gradients[name]).max() <= 1e-4 * largest, name


@pytest.mark.parametrize("name", PACKINGS)
def test_folders(tmp_path, name):
    model = write_folder(tmp_path / "model", PACKINGS[name])
    check(model, tmp_path / "model", tmp_path / "bundle")


@pytest.mark.parametrize("name", ["gptq-asymmetric", pytest.param("nf4", marks=pytest.mark.slow)])
def test_experts(tmp_path, name):
    """Their codes are kept, and read only where a token is routed to them."""
    model = write_folder(tmp_path / "model", PACKINGS[name], tiny_mixtral())
    check(model, tmp_path / "model", tmp_path / "bundle")
    graphs = Bundle.open(tmp_path / "bundle").manifest.graphs.blocks
    for graph in graphs:
        coded = {name for name in graph.routed if name.endswith(("codes4", "nf4"))}
        assert len(coded) == 3 * 2  # gate and up, and down
        assert not {name for name in graph.routed if name.endswith(".weight")}
    runner = BundleRunner(tmp_path / "bundle")
    one = IDS[:1, :1]  # an expert of the three has no token
    *_, hidden = runner.hidden_states(one)
    with torch.no_grad():
        expected = torch.log_softmax(model(torch.tensor(one)).logits, -1).numpy()[0, 0]
    found = runner.log_probs(hidden, np.zeros((97, 2), np.int64), np.arange(97))
    np.testing.assert_allclose(found, expected, atol=3e-5)


@pytest.mark.parametrize("first", [pytest.param(n, marks=pytest.mark.slow) for n in range(1, 10)])
def test_every_type_of_embedding(tmp_path, first):
    """The embedding, which is the head as well, is of another type each time."""
    model = write_mixed_gguf(tmp_path / "m.gguf", first)
    check(model, tmp_path / "m.gguf", tmp_path / "bundle")


def test_all_types_in_one_file(tmp_path):
    model = write_mixed_gguf(tmp_path / "m.gguf", tie_word_embeddings=False)
    check(model, tmp_path / "m.gguf", tmp_path / "bundle")
    stored = load_file(tmp_path / "bundle" / WEIGHTS_FILE)
    assert {name.rpartition(".")[2] for name in stored} >= {*STORED[:4], "factor", "minimum"}
    codes = sum(values.nbytes for name, values in stored.items() if "padding" not in name)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert codes < 1.06 * sum(tensor.n_bytes for tensor in reader.tensors)


def test_numbers_keep_their_bits(tmp_path):
    """A checkpoint that is not quantized: 16 bits stay 16 bits."""
    model = tiny_llama()
    for dtype, bits in ((torch.bfloat16, 16), (torch.float16, 16), (torch.float32, 32)):
        rounded = tiny_llama().to(dtype)
        folder = save(rounded, tmp_path / f"{dtype}")
        export_bundle(str(folder), tmp_path / "bundle", ExportConfig(quant="keep", force=True))
        stored = load_file(tmp_path / "bundle" / WEIGHTS_FILE)
        own = stored["model.layers.0.mlp.down_proj.weight"]
        assert own.dtype == f"float{bits}"
        weights = rounded.model.layers[0].mlp.down_proj.weight.detach().float().numpy()
        # float16 has steps of 6e-8 near 0, bfloat16 smaller ones
        np.testing.assert_allclose(own.astype(np.float32).T, weights, rtol=0, atol=3e-8)
    assert model.config.hidden_size == 64


def test_other_forms_of_a_quantized_folder(tmp_path):
    """Other forms round the weights that the codes mean."""
    model = write_folder(tmp_path / "model", PACKINGS["gptq"])
    export_bundle(str(tmp_path / "model"), tmp_path / "bundle", ExportConfig(quant="fp32"))
    stored = load_file(tmp_path / "bundle" / WEIGHTS_FILE)
    expected = model.model.layers[1].mlp.down_proj.weight.detach().numpy().T
    np.testing.assert_array_equal(stored["model.layers.1.mlp.down_proj.weight"], expected)


def test_estimates_are_those_of_float32(tmp_path):
    """Losses of the two sides of a pair, with the same adapters."""
    write_folder(tmp_path / "model", PACKINGS["awq"])
    found = []
    for quant in ("keep", "fp32"):
        export_bundle(str(tmp_path / "model"), tmp_path / quant, ExportConfig(quant=quant))
        bundle = Bundle.open(tmp_path / quant)
        batch = make_batch(random_set("labels", (5, 9, 12), 0), range(3))
        found.append(Engine(bundle, threads=1).score(batch, SharedParams(moved(bundle))))
    np.testing.assert_allclose(found[0], found[1], atol=2e-5)


def test_scales_that_are_not_finite(tmp_path):
    write_folder(tmp_path / "model", PACKINGS["gptq"])
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.0.mlp.up_proj.scales"][1, 3] = np.nan
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(EdgezoError, match=r"up_proj.weight' of the model: 1 of its scales are not"):
        export_bundle(str(tmp_path / "model"), tmp_path / "bundle", KEEP)
    assert not (tmp_path / "bundle").exists()


def test_a_type_that_cannot_be_kept_is_named(tmp_path):
    kind = gguf.GGMLQuantizationType.IQ4_NL
    model = tiny_llama(hidden_size=256, intermediate_size=256)
    name = "model.layers.1.mlp.up_proj.weight"
    blocks = np.zeros((256, 256 // 32 * 18), np.uint8)
    from tests.export.gguf_model import write_gguf

    write_gguf(tmp_path / "m.gguf", model, "llama", raw={name: (blocks, kind)})
    with pytest.raises(UsageError, match=r"up_proj.weight' is IQ4_NL, whose codes cannot be kept"):
        export_bundle(str(tmp_path / "m.gguf"), tmp_path / "bundle", KEEP)
