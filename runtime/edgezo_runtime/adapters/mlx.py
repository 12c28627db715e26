"""Adapters in the format of mlx-lm (adapters.safetensors, adapter_config.json), without mlx.

mlx-lm turns the layers named by `keys` in the last `num_layers` blocks, all for -1, into
y = W x + scale * (x lora_a) lora_b, with lora_a (in, rank) and lora_b (rank, out); layers that the
file has no tensors for keep a lora_b of zeros. With `fine_tune_type` "full" tensors are weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.adapters.formats import check_format
from edgezo_runtime.adapters.lora_factors import LoraFactors, lora_factors
from edgezo_runtime.adapters.output_folder import FolderKind, new_folder
from edgezo_runtime.adapters.usage import CARD_FILE, Usage
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.system.safetensors_reader import (
    TensorHeaderError,
    read_tensor_header,
    read_tensors,
)
from edgezo_runtime.system.safetensors_writer import write_tensors

Float32 = npt.NDArray[np.float32]

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapters.safetensors"

_KIND = FolderKind(CONFIG_FILE, frozenset({WEIGHTS_FILE, CARD_FILE}))

_MODELS = frozenset(
    {
        "cohere",
        "gemma2",
        "gemma3_text",
        "granite",
        "llama",
        "mistral",
        "olmo2",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
        "starcoder2",
    }
)
"""Architectures whose layers mlx-lm names as transformers does."""


def save_mlx(adapter: Adapter, folder: Path, force: bool = False) -> None:
    """Write the folder, with a model card.

    Args:
        adapter: what to write.
        folder: made; must not exist, or be an adapter folder that `force` replaces.
        force: replace it.
    Raises:
        UsageError: the folder is in the way, or mlx-lm has no such adapters.
        RunFileError: it cannot be written.
    """
    config, tensors = mlx_content(adapter)
    usage = Usage(adapter.info)
    with new_folder(folder, force, _KIND) as made:
        write_tensors(made / WEIGHTS_FILE, tensors, {"format": "mlx", **usage.metadata()})
        text = json.dumps(config, indent=4, ensure_ascii=False) + "\n"
        (made / CONFIG_FILE).write_text(text, encoding="utf-8")
        (made / CARD_FILE).write_text(usage.card("mlx", "mlx"), encoding="utf-8")


def mlx_content(adapter: Adapter) -> tuple[dict[str, Any], dict[str, Float32]]:
    """The content of adapter_config.json, and the tensors by mlx-lm's names.

    Raises:
        UsageError: mlx-lm has no such adapters, or names the layers of the model otherwise.
    """
    check_format(adapter, "mlx")
    info = adapter.info
    if info.architecture not in _MODELS:
        raise UsageError(
            f"{adapter.path}: how mlx-lm names the layers of {info.architecture} models is not "
            f"known here; set `format` to peft or merged"
        )
    common = {"model": info.model, "num_layers": -1}
    if info.scheme.kind == "last-layers":
        weights = {n: np.ascontiguousarray(v.T) for n, v in adapter.tensors.items()}
        return {"fine_tune_type": "full", **common, "lora_parameters": {}}, weights
    tensors: dict[str, Float32] = {}
    factors = lora_factors(adapter)
    for one in factors:
        tensors[f"{one.module}.lora_a"] = np.ascontiguousarray(one.a.T)
        tensors[f"{one.module}.lora_b"] = np.ascontiguousarray(one.b.T)
    parameters = {
        "rank": info.scheme.rank,
        "scale": info.scheme.scale,
        "dropout": 0.0,
        "keys": sorted({_in_block(one.module) for one in factors}),
    }
    return {"fine_tune_type": "lora", **common, "lora_parameters": parameters}, tensors


def read_mlx(folder: Path) -> list[LoraFactors]:
    """Read a LoRA, to compare it with the one that was written.

    Raises:
        RunFileError: the folder is damaged, or holds no LoRA.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        header = read_tensor_header(folder / WEIGHTS_FILE)
        tensors = read_tensors(folder / WEIGHTS_FILE, header)
        scale = float(config["lora_parameters"]["scale"])
        modules = sorted({name.rpartition(".")[0] for name in tensors})
        return [
            LoraFactors(
                module,
                np.ascontiguousarray(tensors[f"{module}.lora_a"].T),
                np.ascontiguousarray(tensors[f"{module}.lora_b"].T),
                scale,
            )
            for module in modules
        ]
    except (OSError, ValueError, KeyError, TypeError, TensorHeaderError) as error:
        raise RunFileError(f"{folder}: not a LoRA of mlx-lm: {error!r:.200}") from error


def _in_block(module: str) -> str:
    """Path of a layer inside its block: "self_attn.q_proj" of "model.layers.3.self_attn.q_proj"."""
    return ".".join(module.split(".")[3:])
