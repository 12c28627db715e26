"""What mlx-lm computes of the files, in numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgezo_runtime.adapters.lora_factors import lora_factors
from edgezo_runtime.adapters.mlx import CONFIG_FILE, mlx_content, read_mlx, save_mlx
from edgezo_runtime.bundle.trainables import SchemeInfo
from edgezo_runtime.errors import RunFileError, UsageError
from tests.runtime.small_adapters import LORA, LORA_SHAPES, small_adapter


def test_layers_are_named_within_their_block() -> None:
    """y = W x + scale * (x lora_a) lora_b."""
    adapter = small_adapter(LORA, LORA_SHAPES)
    config, tensors = mlx_content(adapter)
    parameters = config["lora_parameters"]
    assert parameters["keys"] == ["mlp.up_proj", "self_attn.q_proj"]
    assert (parameters["rank"], config["num_layers"]) == (2, -1)
    for one in lora_factors(adapter):
        x = np.random.default_rng(1).normal(size=(3, one.a.shape[1])).astype(np.float32)
        a, b = tensors[f"{one.module}.lora_a"], tensors[f"{one.module}.lora_b"]
        expected = one.scale * x @ one.a.T @ one.b.T
        np.testing.assert_allclose(parameters["scale"] * (x @ a) @ b, expected, rtol=1e-5)


def test_whole_layers_are_weights() -> None:
    """The bundle has them as (in, out)."""
    adapter = small_adapter(
        SchemeInfo("last-layers", layers=1), {"model.layers.1.mlp.up_proj.weight": (5, 3)}
    )
    config, tensors = mlx_content(adapter)
    assert config["fine_tune_type"] == "full"
    (name,) = adapter.tensors
    np.testing.assert_array_equal(tensors[name], adapter.tensors[name].T)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    adapter = small_adapter(LORA, LORA_SHAPES)
    save_mlx(adapter, tmp_path / "mlx")
    for found, own in zip(read_mlx(tmp_path / "mlx"), lora_factors(adapter), strict=True):
        assert (found.module, found.scale) == (own.module, own.scale)
        np.testing.assert_array_equal(found.a, own.a)
        np.testing.assert_array_equal(found.b, own.b)
    with pytest.raises(UsageError, match="`force`"):
        save_mlx(adapter, tmp_path / "mlx")
    save_mlx(adapter, tmp_path / "mlx", force=True)
    assert json.loads((tmp_path / "mlx" / CONFIG_FILE).read_text())["model"] == "org/m"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"lora_parameters": {}}', '{"lora_parameters": {"scale": "x"}}']
)
def test_damaged_configs_are_refused(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "mlx"
    save_mlx(small_adapter(LORA, LORA_SHAPES), folder)
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(RunFileError, match="not a LoRA of mlx-lm"):
        read_mlx(folder)


def test_models_with_other_names_of_layers_are_refused() -> None:
    with pytest.raises(UsageError, match=r"names the layers of gpt2 models.*`format` to peft"):
        mlx_content(small_adapter(LORA, LORA_SHAPES, architecture="gpt2"))
