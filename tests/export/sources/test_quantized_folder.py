"""Quantized folders against the weights that they were packed from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgezo_export.sources.model_source import open_source
from edgezo_export.sources.stored_codes import CodeForm
from edgezo_runtime.errors import EdgezoError, UsageError
from tests.export.quantized_models import PACKINGS, nf4, write_folder
from tests.export.source_models import assert_same_tensors

Q = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("name", PACKINGS)
def test_the_weights_that_were_packed(tmp_path, name):
    model = write_folder(tmp_path, PACKINGS[name])
    source = open_source(str(tmp_path))
    assert_same_tensors(source, model)
    assert source.form("model.embed_tokens.weight") == "F32"
    form = source.form(f"{Q}.weight")
    assert isinstance(form, CodeForm)
    assert form.bits == (8 if name.startswith("gptq-8") else 4)
    assert bool(form.order) is (name == "gptq-act-order")
    assert (form.zero is None) is (name not in ("gptq", "nf4", "nf4-double"))
    assert source.parameters() == sum(values.numel() for values in model.parameters())


def changed(folder, change) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def first_rows(tensors, name) -> None:
    tensors[name] = np.ascontiguousarray(tensors[name][:-1])


def as_floats(tensors, name) -> None:
    tensors[name] = tensors[name].astype(np.float32)


@pytest.mark.parametrize(
    ("packing", "change", "message"),
    [
        ("gptq", lambda t: first_rows(t, f"{Q}.scales"), r"scales' is \(1, 64\).*be \(2, 64\)"),
        ("gptq", lambda t: t.pop(f"{Q}.qzeros"), r"q_proj.qzeros' is missing"),
        ("awq", lambda t: t.pop(f"{Q}.scales"), r"q_proj.scales' is missing"),
        ("awq", lambda t: first_rows(t, f"{Q}.qzeros"), r"qzeros' is \(1, 8\).*be \(2, 8\)"),
        ("gptq", lambda t: t.update({f"{Q}.weight": t["lm_head.weight"]}), "there quantized and"),
        ("gptq-act-order", lambda t: t[f"{Q}.g_idx"].fill(0), "other numbers of inputs than 32"),
        ("gptq", lambda t: as_floats(t, f"{Q}.qweight"), "should hold integers"),
        ("nf4", lambda t: first_rows(t, f"{Q}.weight.absmax"), "has 63 numbers, and should have"),
        ("nf4", lambda t: t.pop(f"{Q}.weight.quant_map"), "quant_map' is missing"),
        ("nf4", lambda t: t[f"{Q}.weight.quant_map"].fill(0), "other numbers than those of NF4"),
        (
            "nf4",
            lambda t: t[f"{Q}.weight.quant_state.bitsandbytes__nf4"].__setitem__(0, 0),
            "does not say how",
        ),
    ],
)
def test_damaged_layers(tmp_path, packing, change, message):
    write_folder(tmp_path, PACKINGS[packing])
    changed(tmp_path, change)
    with pytest.raises(EdgezoError, match=message):
        open_source(str(tmp_path)).read(f"{Q}.weight")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"quant_method": "hqq"}, "quantization_config.quant_method = 'hqq'"),
        ({"bits": 4}, "quantization_config.quant_method = None"),
        ({"quant_method": "gptq", "bits": 3}, "quantization_config.bits = 3"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "group_size = 0"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"a": 1}}, "dynamic = {'a': 1}"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "= 'marlin'"),
        ({"quant_method": "awq", "version": "gemv"}, "version = 'gemv'"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "load_in_8bit = True"),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
            "bnb_4bit_quant_type = 'fp4'",
        ),
    ],
)
def test_other_quantizations_are_named(tmp_path, config, named):
    write_folder(tmp_path, PACKINGS["nf4"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": config}))
    with pytest.raises(UsageError, match="export the unquantized model") as caught:
        open_source(str(tmp_path))
    assert named in str(caught.value)


def test_a_config_without_quantized_layers(tmp_path):
    write_folder(tmp_path, nf4(nested=False))
    path = tmp_path / "config.json"
    entry = {"quantization_config": PACKINGS["gptq"].config}
    path.write_text(json.dumps(json.loads(path.read_text()) | entry))
    with pytest.raises(EdgezoError, match="no tensor is quantized"):
        open_source(str(tmp_path))
