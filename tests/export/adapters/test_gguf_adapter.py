"""LoRA files for llama.cpp, folded into GGUF models that transformers reads by rules of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from edgezo_export.adapters.gguf_adapter import read_gguf, save_gguf
from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.adapters.adapter_info import AdapterInfo
from edgezo_runtime.bundle.trainables import SchemeInfo
from edgezo_runtime.errors import EdgezoError, MissingExtraError, RunFileError, UsageError
from tests.export.gguf_model import folded, write_gguf
from tests.export.source_models import GGUF_MODELS, SIZES
from tests.small_files import small_files

Array = np.ndarray[Any, np.dtype[np.float32]]
RANK, ALPHA = 3, 12.0


def tiny_model(arch: str) -> Any:
    config_class, extra = GGUF_MODELS[arch]
    torch.manual_seed(0)
    config = config_class(**SIZES | extra, tie_word_embeddings=True)
    return AutoModelForCausalLM.from_config(config).eval()


def random_lora(model: Any, path: Path, rank: int = RANK) -> Adapter:
    """LoRA on every linear layer of the blocks."""
    generator = np.random.default_rng(0)
    tensors: dict[str, Array] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layers." in f".{name}":
            shapes = {"lora_A": (rank, module.in_features), "lora_B": (module.out_features, rank)}
            for role, shape in shapes.items():
                tensors[f"{name}.{role}"] = generator.standard_normal(shape).astype(np.float32) / 6
    scheme = SchemeInfo("lora", ("x",), rank, ALPHA, "b")
    kind = model.config.model_type
    info = AdapterInfo(2, "test", "org/m", kind, "causal-lm", "", scheme, True, 1)
    return Adapter(info, tensors, path)


def logits(model: Any) -> Array:
    with torch.inference_mode():
        ids = torch.arange(3, 40).reshape(1, -1)
        found: Array = model(input_ids=ids).logits.numpy()
    return found


@pytest.mark.parametrize("arch", GGUF_MODELS)
def test_folded_by_llama_cpps_rule_it_is_the_adapted_model(tmp_path: Path, arch: str) -> None:
    """W + alpha / rank * B A on the tensors of the file, as llama-export-lora merges them."""
    model = tiny_model(arch)
    adapter = random_lora(model, tmp_path / "a")
    save_gguf(adapter, tmp_path / "a.gguf", model.config.to_dict())
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    said = {key: field.contents() for key, field in reader.fields.items()}
    assert said["general.type"] == "adapter"
    assert said["adapter.type"] == "lora"
    assert said["adapter.lora.alpha"] == ALPHA
    changes = folded(tmp_path / "a.gguf")
    assert 2 * len(changes) == len(reader.tensors) == len(adapter.tensors)
    write_gguf(tmp_path / "m.gguf", model, said["general.architecture"], changes=changes)
    merged = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32
    ).eval()

    plain = logits(model)
    with torch.no_grad():
        for name in adapter.modules:
            a, b = (torch.tensor(adapter.tensors[f"{name}.lora_{part}"]) for part in "AB")
            model.get_submodule(name).weight += ALPHA / RANK * b @ a
    expected = logits(model)
    np.testing.assert_allclose(logits(merged), expected, atol=2e-5)
    assert np.abs(expected - plain).max() > 1e-2


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    model = tiny_model("llama")
    config = model.config.to_dict()
    adapter = random_lora(model, tmp_path / "a")
    path = tmp_path / "a.gguf"
    save_gguf(adapter, path, config)
    for one in read_gguf(path, adapter.modules, "llama", config):
        np.testing.assert_array_equal(one.a, adapter.tensors[f"{one.module}.lora_A"])
        np.testing.assert_array_equal(one.b, adapter.tensors[f"{one.module}.lora_B"])
        assert one.scale == ALPHA / RANK
    with pytest.raises(RunFileError, match=r"differs from the adapter that was written"):
        read_gguf(path, ["lm_head"], "llama", config)
    with pytest.raises(RunFileError, match=r"unexpected tensor '.*lora_.*'"):
        read_gguf(path, adapter.modules[1:], "llama", config)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunFileError, match="differs from the adapter"):
        read_gguf(path, adapter.modules, "llama", config)


def test_an_adapter_for_answers_names_its_token(tmp_path: Path) -> None:
    model = tiny_model("llama")
    adapter = random_lora(model, tmp_path / "a")
    adapter = replace(adapter, info=replace(adapter.info, scope="answer", invocation=(7,)))
    save_gguf(adapter, tmp_path / "a.gguf", model.config.to_dict())
    field = gguf.GGUFReader(tmp_path / "a.gguf").fields["adapter.alora.invocation_tokens"]
    assert field.contents() == [7]
    assert field.types == [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT32]
    nowhere = replace(adapter, info=replace(adapter.info, invocation=()))
    with pytest.raises(UsageError, match=r"different tokens.*`scope` all"):
        save_gguf(nowhere, tmp_path / "b.gguf", model.config.to_dict())
    assert not (tmp_path / "b.gguf").exists()


@pytest.mark.parametrize("most", [2000, 6000])
def test_a_full_disk_is_told(tmp_path: Path, most: int) -> None:
    """The gguf package ends well where numpy's last bytes do not reach the disk."""
    model = tiny_model("llama")
    adapter = random_lora(model, tmp_path / "a")
    with small_files(most), pytest.raises(RunFileError, match=r"a\.gguf: cannot be written: .+"):
        save_gguf(adapter, tmp_path / "a.gguf", model.config.to_dict())
    assert not list(tmp_path.iterdir())


def test_layers_that_are_none_of_the_model(tmp_path: Path) -> None:
    """Files from strangers: a layer under two names, rows that are no heads."""
    config = tiny_model("llama").config.to_dict()
    adapter = random_lora(tiny_model("llama"), tmp_path / "a")
    q = "model.layers.0.self_attn.q_proj"
    other = {f"layers.0.attention.wq.lora_{x}": adapter.tensors[f"{q}.lora_{x}"] for x in "AB"}
    twice = replace(adapter, tensors=adapter.tensors | other)
    with pytest.raises(EdgezoError, match=r"another layer .* name blk\.0\.attn_q\.weight"):
        save_gguf(twice, tmp_path / "a.gguf", config)
    short = {f"{q}.lora_B": adapter.tensors[f"{q}.lora_B"][:7]}
    with pytest.raises(EdgezoError, match="7 rows cannot be those of 4 heads"):
        save_gguf(replace(adapter, tensors=adapter.tensors | short), tmp_path / "a.gguf", config)
    assert not list(tmp_path.iterdir())


def test_what_llama_cpp_has_no_place_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    config = model.config.to_dict()
    adapter = random_lora(model, tmp_path / "a")
    path = tmp_path / "a.gguf"

    def changed(**changes: Any) -> Adapter:
        return replace(adapter, info=replace(adapter.info, **changes))

    with pytest.raises(UsageError, match="set `format` to safetensors or peft or merged"):
        save_gguf(changed(scheme=SchemeInfo("ia3", ("k",))), path, config)
    with pytest.raises(UsageError, match=r"opt models are not supported; supported are llama"):
        save_gguf(changed(architecture="opt"), path, config)
    with pytest.raises(EdgezoError, match="num_attention_heads None"):
        save_gguf(adapter, path, {"num_hidden_layers": 2})
    odd = replace(adapter, tensors={f"x.{name}": v for name, v in adapter.tensors.items()})
    with pytest.raises(EdgezoError, match=r"no name for 'x.model"):
        save_gguf(odd, path, config)
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgezo\[gguf\]'"):
        save_gguf(adapter, path, config)
    assert not path.exists()
