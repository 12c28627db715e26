"""Merged weights against torch: every scheme that is a change of weights, types and shards."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from edgezo_export.adapters.merged import save_merged
from edgezo_export.sources.float_bytes import float_bytes
from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.adapters.adapter_info import AdapterInfo
from edgezo_runtime.bundle.trainables import SchemeInfo
from edgezo_runtime.errors import EdgezoError, UsageError
from tests.export.tiny_models import TINY, save

Array = np.ndarray[Any, np.dtype[np.float32]]

BLOCK = "model.layers.0."
LORA = SchemeInfo("lora", ("x",), 2, 6.0, "b")


def draw(*shape: int) -> Array:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def adapter_of(
    scheme: SchemeInfo, tensors: dict[str, Array], path: Path, architecture: str = "llama"
) -> Adapter:
    info = AdapterInfo(2, "test", "org/m", architecture, "causal-lm", "", scheme, True, 1)
    return Adapter(info, tensors, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama with biases, in float32 shards."""
    model = TINY["llama-bias"].build()
    place = save(model, tmp_path_factory.mktemp("merged") / "model")
    model.save_pretrained(place, max_shard_size="60KB")
    (place / "model.safetensors").unlink()
    assert len(list(place.glob("*.safetensors"))) > 2
    (place / "weights.bin").write_bytes(b"not copied")
    return place


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


CASES: dict[str, tuple[SchemeInfo, dict[str, Array]]] = {
    "lora": (
        LORA,
        {f"{BLOCK}mlp.up_proj.lora_A": draw(2, 64), f"{BLOCK}mlp.up_proj.lora_B": draw(96, 2)},
    ),
    "ia3": (
        SchemeInfo("ia3", ("k",)),
        {f"{BLOCK}self_attn.k_proj.gain": draw(32), f"{BLOCK}mlp.down_proj.input_gain": draw(96)},
    ),
    "scales": (SchemeInfo("scales"), {f"{BLOCK}self_attn.v_proj.channel_scale": draw(32)}),
    "bitfit": (
        SchemeInfo("bitfit", biases="own"),
        {
            f"{BLOCK}self_attn.v_proj.added_bias": draw(32),
            f"{BLOCK}input_layernorm.norm_weight": draw(64),
        },
    ),
    "last-layers": (
        SchemeInfo("last-layers", layers=1),
        {f"{BLOCK}mlp.up_proj.weight": draw(64, 96)},
    ),
}


def changed(kind: str, own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What each scheme is, in one line of torch."""
    t = {name: torch.tensor(value) for name, value in CASES[kind][1].items()}
    up, down = f"{BLOCK}mlp.up_proj", f"{BLOCK}mlp.down_proj"
    k, v, norm = f"{BLOCK}self_attn.k_proj", f"{BLOCK}self_attn.v_proj", f"{BLOCK}input_layernorm"
    if kind == "lora":
        return {f"{up}.weight": own[f"{up}.weight"] + 3 * t[f"{up}.lora_B"] @ t[f"{up}.lora_A"]}
    if kind == "ia3":
        gain = t[f"{k}.gain"]
        return {
            f"{k}.weight": own[f"{k}.weight"] * gain[:, None],
            f"{k}.bias": own[f"{k}.bias"] * gain,
            f"{down}.weight": own[f"{down}.weight"] * t[f"{down}.input_gain"],
        }
    if kind == "scales":
        return {f"{v}.weight": own[f"{v}.weight"] * t[f"{v}.channel_scale"][:, None]}
    if kind == "bitfit":
        return {
            f"{v}.bias": own[f"{v}.bias"] + t[f"{v}.added_bias"],
            f"{norm}.weight": own[f"{norm}.weight"] + t[f"{norm}.norm_weight"],
        }
    return {f"{up}.weight": t[f"{up}.weight"].T}


@pytest.mark.parametrize("kind", CASES)
def test_weights_are_changed_and_the_rest_is_copied(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    adapter = adapter_of(*CASES[kind], tmp_path / "a")
    told: list[tuple[int, int]] = []
    made = save_merged(
        adapter, folder, tmp_path / "out", tell=lambda done, total: told.append((done, total))
    )
    sizes = [own.stat().st_size for own in (tmp_path / "out").glob("*.safetensors")]
    assert told[0][0] == 0
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] < sum(sizes) < told[-1][1] + 65536  # and the headers
    own, found = tensors_of(folder), tensors_of(tmp_path / "out")
    expected = changed(kind, own)
    assert (made.tensors, made.changed) == (len(own), len(expected))
    assert found.keys() == own.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, (own | expected)[name], rtol=1e-6, atol=1e-6)
        if name not in expected:
            assert torch.equal(value, own[name])
    names = {file.name for file in folder.iterdir()} - {"weights.bin"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names | {"README.md"}
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_conv1d_weights_are_turned(tmp_path: Path) -> None:
    place = save(TINY["gpt2"].build(), tmp_path / "model")
    module = "transformer.h.1.mlp.c_fc"
    tensors = {f"{module}.lora_A": draw(2, 64), f"{module}.lora_B": draw(256, 2)}
    save_merged(adapter_of(LORA, tensors, tmp_path / "a", "gpt2"), place, tmp_path / "out")
    own, found = tensors_of(place), tensors_of(tmp_path / "out")
    change = 3 * tensors[f"{module}.lora_B"] @ tensors[f"{module}.lora_A"]
    expected = own[f"{module}.weight"] + torch.tensor(change).T
    torch.testing.assert_close(found[f"{module}.weight"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", ["keep", "fp32", "fp16", "bf16"])
def test_types_are_torchs(tmp_path: Path, source: torch.dtype, dtype: str) -> None:
    """Checkpoints of an older name for the base model; a buffer of integers; a scalar."""
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"torch_dtype": "x", "a": "ü"}))
    name = "layers.0.mlp.up_proj.weight"
    own = {
        name: torch.tensor(draw(96, 64)).to(source),
        "norm.weight": torch.tensor(draw(64)).to(source),
        "scalar": torch.tensor(1.5).to(source),
        "ids": torch.arange(5),
    }
    save_file(own, place / "model.safetensors")
    adapter = adapter_of(*CASES["lora"], tmp_path / "a")
    save_merged(adapter, place, tmp_path / "out", dtype)  # type: ignore[arg-type]
    found = load_file(tmp_path / "out" / "model.safetensors")
    wanted = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}.get(
        dtype, source
    )
    a, b = (torch.tensor(CASES["lora"][1][f"{BLOCK}mlp.up_proj.lora_{part}"]) for part in "AB")
    for key, value in own.items():
        kept = value.float() + 3 * b @ a if key == name else value.float()
        expected = value if key == "ids" else kept.to(wanted)
        assert found[key].dtype == expected.dtype
        torch.testing.assert_close(found[key], expected, rtol=2**-7, atol=1e-6)
        if key != name:
            assert torch.equal(found[key], expected)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["a"] == "ü"
    said = None if dtype == "keep" else str(wanted).removeprefix("torch.")
    assert config.get("dtype") == said


def test_bfloat16_rounds_as_torch_does() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, np.uint32)
    special = np.array(
        [0, 1, 0x3F808000, 0x3F818000, 0x7F800000, 0xFF800000, 0x7FC00000], np.uint32
    )
    values = np.concatenate([bits, special]).view(np.float32)
    values = values[np.abs(values) < 3.38e38]  # what rounds to infinity is refused
    stored = np.frombuffer(float_bytes(values, "BF16"), np.uint16)
    expected = torch.tensor(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(stored, expected)
    for dtype, number in (("F16", 7e4), ("BF16", 3.4e38)):
        with pytest.raises(OverflowError, match="is beyond"):
            float_bytes(np.array([number], np.float32), dtype)


def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def refused(match: str, scheme: SchemeInfo, tensors: dict[str, Array], **changes: Any) -> None:
        adapter = adapter_of(scheme, tensors, tmp_path / "a")
        adapter = replace(adapter, info=replace(adapter.info, **changes))
        with pytest.raises(EdgezoError, match=match):
            save_merged(adapter, folder, out)
        assert not list(tmp_path.iterdir())

    lora = CASES["lora"][1]
    refused("set `format` to safetensors", SchemeInfo("tt", rank=2), {"m.tt_up_0": draw(1, 2, 2)})
    refused("acts on answers only", LORA, lora, scope="answer", invocation=(3,))
    other = {name.replace("up_proj", "x_proj"): value for name, value in lora.items()}
    refused("no tensor 'model.layers.0.mlp.x_proj.weight'", LORA, other)
    bias = {f"{BLOCK}input_layernorm.norm_bias": draw(64)}
    refused("no such bias to add to", SchemeInfo("bitfit", biases="own"), bias)
    short = lora | {f"{BLOCK}mlp.up_proj.lora_A": draw(2, 63)}
    refused(r"rows of shape \(96, 64\) in the model, \(96, 63\)", LORA, short)
    big = {name: value * 1e5 for name, value in lora.items()}
    adapter = adapter_of(LORA, big, tmp_path / "a")
    with pytest.raises(EdgezoError, match=r"beyond float16; use `dtype` fp32 or bf16"):
        save_merged(adapter, folder, out, "fp16")
    with pytest.raises(UsageError, match="holds the base model"):
        save_merged(adapter, folder, folder, force=True)
    with pytest.raises(UsageError, match="exists"):
        save_merged(adapter, folder, tmp_path)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_tensors(tmp_path: Path) -> None:
    place, side = tmp_path / "model", 3000
    place.mkdir()
    (place / "config.json").write_text("{}")
    tensors = {f"{BLOCK}q.weight": np.ones((side, side), np.float32), "e": np.ones(side * side)}
    safetensors.numpy.save_file(tensors, place / "model.safetensors")
    factors = {f"{BLOCK}q.lora_A": draw(2, side), f"{BLOCK}q.lora_B": draw(side, 2)}
    adapter = adapter_of(LORA, factors, tmp_path / "a")
    tracemalloc.start()
    save_merged(adapter, place, tmp_path / "out", "bf16")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6 < tensors["e"].nbytes
    found = load_file(tmp_path / "out" / "model.safetensors")[f"{BLOCK}q.weight"]
    expected = 1 + 3 * factors[f"{BLOCK}q.lora_B"][-1] @ factors[f"{BLOCK}q.lora_A"]
    torch.testing.assert_close(found[-1].float(), torch.tensor(expected), rtol=2**-7, atol=1e-3)


def test_quantized_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {"bits": 4}}')
    safetensors.numpy.save_file({"a": draw(2)}, tmp_path / "model.safetensors")
    adapter = adapter_of(*CASES["lora"], tmp_path / "a")
    with pytest.raises(UsageError, match="quantized already"):
        save_merged(adapter, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("trained", [False, True])
def test_a_trained_head_is_kept_and_not_tied(tmp_path, trained):
    """Some programs drop a head that the config ties."""
    model = TINY["llama-tied"].build()
    source = save(model, tmp_path / "model")
    file = source / "model.safetensors"
    tensors = load_file(file)
    head = tensors["model.embed_tokens.weight"].flip(0) if trained else None
    if head is not None:
        save_file(tensors | {"lm_head.weight": head.contiguous()}, file, metadata={"format": "pt"})
    scheme, values = CASES["lora"]
    save_merged(adapter_of(scheme, values, tmp_path), source, tmp_path / "merged")
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["tie_word_embeddings"] is not trained
    assert config | {"tie_word_embeddings": True} == json.loads(
        (source / "config.json").read_text()
    )
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    expected = model.get_input_embeddings().weight if head is None else head
    torch.testing.assert_close(loaded.get_output_embeddings().weight, expected)
