"""LoRA of PEFT as a starting point: what PEFT computes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from edgezo_runtime.adapters.adapter import load_adapter
from edgezo_runtime.adapters.peft_reader import read_peft, start_from_peft
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import EdgezoError, RunFileError, UsageError
from edgezo_runtime.evaluation.parity import Agreement, Sample, draw_sample, own_scores
from tests.conftest import Exported

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "base_model_name_or_path": "org/m"}


def write(folder: Path, tensors: dict[str, Any] | None = None, **config: object) -> Path:
    """A PEFT folder; None takes a key out."""
    folder.mkdir(exist_ok=True)
    content = {key: value for key, value in (CONFIG | config).items() if value is not ...}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    if tensors is None:
        tensors = {"x.q.lora_A": np.ones((2, 4)), "x.q.lora_B": np.ones((3, 2))}
    named = {
        name if name.startswith("=") else f"base_model.model.{name}.weight": value
        for name, value in tensors.items()
    }
    arrays = {
        name.removeprefix("="): np.asarray(value, getattr(value, "dtype", np.float32))
        for name, value in named.items()
    }
    safetensors.numpy.save_file(arrays, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize(
    "config",
    [
        {"r": 3, "lora_alpha": 7},
        {"r": 3, "lora_alpha": 4, "use_rslora": True},
        {"r": 2, "rank_pattern": {"v_proj": 1}},
    ],
    ids=["plain", "rslora", "ranks"],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_computes_what_peft_computes(
    exported: Callable[[str], Exported], tmp_path: Path, config: dict[str, Any], dtype: str
) -> None:
    peft = pytest.importorskip("peft")
    import torch
    import transformers

    from edgezo_export.proofs.hugging_face import peft_scores

    made = exported("llama")
    bundle = made.bundle("fp32").bundle
    model = transformers.AutoModelForCausalLM.from_pretrained(made.folder)
    settings = peft.LoraConfig(**{"target_modules": ["q_proj", "v_proj"], **config})
    lora = peft.get_peft_model(model, settings)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in lora.named_parameters():
            if "lora_" in name:
                value.copy_(torch.randn_like(value) / 4)
                value.data = value.data.to(getattr(torch, dtype)).float()
    lora.to(getattr(torch, dtype)).save_pretrained(tmp_path / "peft")

    adapter = start_from_peft(
        read_peft(tmp_path / "peft"), bundle, tmp_path / "a", created_by="test"
    )
    adapter.save(adapter.path)
    params = load_adapter(adapter.path).params(bundle)
    sample = draw_sample(adapter, bundle.manifest.model.vocab_size)
    own = own_scores(Engine(bundle), params, bundle.trainables(), sample)
    found = Agreement.of(own, peft_scores(made.folder, tmp_path / "peft", "causal-lm", sample))
    assert found.relative < 1e-4
    assert found.effect > 1e-2


def test_an_adapter_for_answers(bundle: Bundle, tmp_path: Path) -> None:
    module = "model.layers.0.self_attn.q_proj"
    tensors = {f"{module}.lora_A": np.ones((2, 64)), f"{module}.lora_B": np.ones((64, 2))}
    said = {"base_model_name_or_path": bundle.manifest.model.id}
    folder = write(tmp_path / "p", tensors, alora_invocation_tokens=[9], **said)
    adapter = start_from_peft(read_peft(folder), bundle, tmp_path / "a", created_by="test")
    assert (adapter.info.scope, adapter.info.invocation) == ("answer", (9,))
    assert adapter.modules == [module]
    write(tmp_path / "p", tensors, alora_invocation_tokens=[9, 8], **said)
    with pytest.raises(UsageError, match="acts after 2 tokens in a row"):
        start_from_peft(read_peft(folder), bundle, tmp_path / "a", created_by="test")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'; only LORA"),
        ({"use_dora": True}, "use_dora True is more than the factors"),
        ({"bias": "all"}, "bias 'all' is more"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save of this form is more"),
        ({"alpha_pattern": {"q": 3}}, "alpha_pattern of this form"),
        ({"init_lora_weights": "pissa"}, "'pissa' changes the base model"),
        ({"init_lora_weights": "lora_ga"}, "'lora_ga' changes the base model"),
        ({"kasa_config": {"beta": 1}}, "kasa_config of this form is more"),
        ({"r": 0}, "r 0 is no rank"),
        ({"r": ...}, "r: expected int"),
        ({"r": True}, "r: expected int"),
        ({"lora_alpha": "8"}, "lora_alpha: expected float"),
        ({"lora_alpha": 1e300}, "out of proportion"),
        ({"lora_alpha": -1}, "out of proportion"),
        ({"use_rslora": 1}, "use_rslora: expected bool"),
        ({"alora_invocation_tokens": [-1]}, "a number is no token"),
        ({"base_model_name_or_path": "a\nb"}, "do not print"),
    ],
)
def test_configurations_that_are_more_or_less(
    tmp_path: Path, config: dict[str, object], message: str
) -> None:
    with pytest.raises(EdgezoError, match=message):
        read_peft(write(tmp_path / "p", **config))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"x.q.lora_A": np.ones((2, 4))}, "has lora_A alone"),
        ({"x.q.lora_A": np.ones((2, 4)), "x.q.lora_B": np.ones((3, 1))}, "do not fit"),
        ({"x.q.lora_A": np.ones(4), "x.q.lora_B": np.ones((3, 2))}, "expected a matrix"),
        ({"x.q.lora_A": np.full((1, 4), np.inf), "x.q.lora_B": np.ones((3, 1))}, "not finite"),
        ({"x.q.lora_A": np.ones((1, 4), np.int8)}, "int8, expected floats"),
        ({"=base_model.model.e.lora_embedding_A": np.ones((2, 4))}, "no factor of a linear layer"),
        ({"=model.q.lora_A.weight": np.ones((2, 4))}, "no factor of a linear layer"),
        ({"x.q": np.ones((2, 4))}, "no factor of a linear layer"),
        ({}, "no tensors"),
    ],
)
def test_tensors_that_are_no_lora(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgezoError, match=message):
        read_peft(write(tmp_path / "p", tensors))


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "orthogonal", "eva", "mica"])
def test_starts_that_leave_the_base_model_as_it_is(tmp_path: Path, start: object) -> None:
    assert read_peft(write(tmp_path / "p", init_lora_weights=start)).rank == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match=r"adapter_config\.json: cannot be read"):
        read_peft(tmp_path)
    folder = write(tmp_path / "p")
    weights = folder / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    with pytest.raises(RunFileError, match="cannot be read"):
        read_peft(folder)
    weights.unlink()
    with pytest.raises(RunFileError, match="cannot be read"):
        read_peft(folder)
    (folder / "adapter_model.bin").touch()
    with pytest.raises(UsageError, match="can hold code and is not opened"):
        read_peft(folder)
    (folder / "adapter_config.json").write_text("[" * 100)
    with pytest.raises(RunFileError, match="not JSON"):
        read_peft(folder)


def test_bundles_that_it_does_not_fit(bundle: Bundle, tmp_path: Path) -> None:
    own = {"base_model_name_or_path": bundle.manifest.model.id}
    q = "model.layers.0.self_attn.q_proj"

    def refused(match: str, tensors: dict[str, Any], **config: object) -> None:
        lora = read_peft(write(tmp_path / "p", tensors, **(own | config)))
        with pytest.raises(EdgezoError, match=match):
            start_from_peft(lora, bundle, tmp_path / "a", created_by="test")

    good = {f"{q}.lora_A": np.ones((2, 64)), f"{q}.lora_B": np.ones((64, 2))}
    refused("tuned on 'org/m'.*`base_model`", good, base_model_name_or_path="org/m")
    high = {f"{q}.lora_A": np.ones((4, 64)), f"{q}.lora_B": np.ones((64, 4))}
    refused("rank 4, bundle .* has 3; export it with `rank` 4", high)
    wide = {f"{q}.lora_A": np.ones((2, 63)), f"{q}.lora_B": np.ones((64, 2))}
    refused("they are of another model", wide)
    k = "model.layers.0.self_attn.k_proj"
    other = {name.replace(q, k): value for name, value in good.items()}
    refused("adapts no layer 'model.layers.0.self_attn.k_proj'; .*'k_proj'", other)


def test_what_was_not_given_stays_as_the_bundle_has_it(bundle: Bundle, tmp_path: Path) -> None:
    """A of the ranks that the LoRA lacks is the bundle's, so that they can still learn."""
    q = "model.layers.0.self_attn.q_proj"
    tensors = {f"{q}.lora_A": np.full((1, 64), 0.5), f"{q}.lora_B": np.full((64, 1), 0.25)}
    folder = write(tmp_path / "p", tensors, r=1, base_model_name_or_path=None)
    adapter = start_from_peft(read_peft(folder), bundle, tmp_path / "a", created_by="test")
    initial = bundle.trainables()
    a, b = adapter.tensors[f"{q}.lora_A"], adapter.tensors[f"{q}.lora_B"]
    np.testing.assert_array_equal(a[1:], initial[f"{q}.lora_A"][1:])
    np.testing.assert_array_equal(a[0], 0.5)
    np.testing.assert_array_equal(b[:, 0], 0.25 * 8 / bundle.manifest.scheme.scale)
    assert not b[:, 1:].any()
    assert isinstance(draw_sample(adapter, 97), Sample)
