"""Schemes in PEFT's terms: what adapter_config.json says, and how tensors are laid out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from edgezo_runtime.adapters.peft_writer import CONFIG_FILE, WEIGHTS_FILE, peft_content, save_peft
from edgezo_runtime.bundle.trainables import SchemeInfo
from edgezo_runtime.errors import UsageError
from tests.runtime.small_adapters import LORA, LORA_SHAPES, small_adapter


def test_lora_has_short_names_where_all_blocks_have_it() -> None:
    adapter = small_adapter(LORA, LORA_SHAPES)
    config, tensors = peft_content(adapter)
    assert config["peft_type"] == "LORA"
    assert (config["r"], config["lora_alpha"]) == (2, 8)
    assert config["target_modules"] == ["q_proj", "up_proj"]
    assert config["task_type"] == "CAUSAL_LM"
    assert not config["fan_in_fan_out"]
    for name, value in adapter.tensors.items():
        np.testing.assert_array_equal(tensors[f"base_model.model.{name}.weight"], value)


def test_lora_has_paths_where_some_blocks_have_it() -> None:
    adapter = small_adapter(LORA, LORA_SHAPES, complete=False)
    assert peft_content(adapter)[0]["target_modules"] == adapter.modules


def test_conv1d_layers_store_their_weights_the_other_way() -> None:
    adapter = small_adapter(LORA, LORA_SHAPES, architecture="gpt2")
    assert peft_content(adapter)[0]["fan_in_fan_out"]


def test_an_adapter_for_answers_names_the_token_it_acts_from() -> None:
    adapter = small_adapter(LORA, LORA_SHAPES, scope="answer", invocation=(42,))
    assert peft_content(adapter)[0]["alora_invocation_tokens"] == [42]
    with pytest.raises(UsageError, match="prompts end in different tokens"):
        peft_content(small_adapter(LORA, LORA_SHAPES, scope="answer"))


def test_ia3_tells_gains_of_inputs_from_those_of_outputs() -> None:
    shapes = {"layers.0.down.input_gain": (8,), "layers.0.k.output_gain": (6,)}
    adapter = small_adapter(SchemeInfo("ia3"), shapes)
    config, tensors = peft_content(adapter)
    assert config["feedforward_modules"] == ["layers.0.down"]
    assert config["target_modules"] == ["layers.0.down", "layers.0.k"]
    assert tensors["base_model.model.layers.0.down.ia3_l"].shape == (1, 8)
    assert tensors["base_model.model.layers.0.k.ia3_l"].shape == (6, 1)


def test_a_prompt_is_one_matrix() -> None:
    adapter = small_adapter(SchemeInfo("prompt", tokens=(5, 6, 7)), {"model.prompt": (3, 8)})
    config, tensors = peft_content(adapter)
    assert (config["num_virtual_tokens"], config["token_dim"]) == (3, 8)
    np.testing.assert_array_equal(tensors["prompt_embeddings"], adapter.tensors["model.prompt"])
    with pytest.raises(UsageError, match="gemma2 does more than add positions"):
        peft_content(
            small_adapter(
                SchemeInfo("prompt", tokens=(5,)), {"model.prompt": (1, 8)}, architecture="gemma2"
            )
        )


def test_a_prefix_is_keys_then_values_block_by_block() -> None:
    """(N, 2 L n D); blocks 2 and 10 are in the order of numbers, not of letters."""
    names = [f"layers.{b}.prefix_{half}" for b in (10, 2) for half in ("value", "key")]
    adapter = small_adapter(
        SchemeInfo("prefix", tokens=(5, 6, 7)), dict.fromkeys(names, (2, 3, 4))
    )  # (n, N, D)
    config, tensors = peft_content(adapter)
    assert (config["num_layers"], config["num_attention_heads"], config["token_dim"]) == (2, 2, 8)
    found = tensors["prompt_embeddings"].reshape(3, 2, 2, 2, 4)  # N, L, half, n, D
    for place, block in enumerate((2, 10)):
        for half, name in enumerate(("key", "value")):
            value = adapter.tensors[f"layers.{block}.prefix_{name}"]
            np.testing.assert_array_equal(found[:, place, half], value.transpose(1, 0, 2))


def test_the_folder_has_what_was_said(tmp_path: Path) -> None:
    adapter = small_adapter(LORA, LORA_SHAPES)
    save_peft(adapter, tmp_path / "peft")
    config, tensors = peft_content(adapter)
    assert json.loads((tmp_path / "peft" / CONFIG_FILE).read_text()) == config
    found = safetensors.numpy.load_file(tmp_path / "peft" / WEIGHTS_FILE)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)
