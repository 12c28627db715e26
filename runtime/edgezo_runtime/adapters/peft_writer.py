"""Adapters in the format of PEFT (adapter_config.json, adapter_model.safetensors), without PEFT."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.adapters.formats import CONV1D_MODELS, check_format
from edgezo_runtime.adapters.lora_factors import lora_factors
from edgezo_runtime.adapters.output_folder import FolderKind, new_folder
from edgezo_runtime.adapters.usage import CARD_FILE, Usage
from edgezo_runtime.bundle.trainables import SchemeKind
from edgezo_runtime.errors import UsageError
from edgezo_runtime.system.safetensors_writer import write_tensors

Float32 = npt.NDArray[np.float32]
Content = tuple[dict[str, Any], dict[str, Float32]]

_PLAIN_EMBEDDINGS = frozenset(
    {
        "cohere",
        "gpt2",
        "gpt_neox",
        "llama",
        "mistral",
        "olmo2",
        "phi",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
        "starcoder2",
    }
)
"""Architectures whose first block starts from embeddings, with or without positions added: what
is added there is the same as what is added to an embedding, which is where PEFT has prompts."""


def peft_content(adapter: Adapter) -> Content:
    """The content of adapter_config.json, and the tensors by PEFT's names.

    Raises:
        UsageError: PEFT has no such adapters, or no way to say on which tokens they act.
    """
    check_format(adapter, "peft")
    return _CONTENT[adapter.info.scheme.kind](adapter)


def _lora(adapter: Adapter) -> Content:
    """LoRA; one that acts on answers only is an activated LoRA (PEFT 0.18 and newer)."""
    tensors: dict[str, Float32] = {}
    for one in lora_factors(adapter):
        tensors[f"base_model.model.{one.module}.lora_A.weight"] = np.ascontiguousarray(one.a)
        tensors[f"base_model.model.{one.module}.lora_B.weight"] = one.b
    return _low_rank(adapter), tensors


def _low_rank(adapter: Adapter) -> dict[str, Any]:
    """The config of LoRA.

    Full module paths are named where only some blocks are adapted, and in encoders, whose heads
    have layers of the same names as their blocks; short names otherwise.
    """
    info, scheme = adapter.info, adapter.info.scheme
    causal = info.task == "causal-lm"
    short = sorted({module.rpartition(".")[2] for module in adapter.modules})
    alpha = 1.0 if scheme.alpha is None else scheme.alpha
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "r": scheme.rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "target_modules": short if causal and info.complete else adapter.modules,
        "fan_in_fan_out": info.architecture in CONV1D_MODELS,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    if info.scope == "answer":
        config["alora_invocation_tokens"] = list(info.invocation)
    return _common(adapter) | config


def _ia3(adapter: Adapter) -> Content:
    """(IA)^3; full paths, because PEFT goes by the ends of names."""
    tensors: dict[str, Float32] = {}
    inputs: list[str] = []
    for name, value in adapter.tensors.items():
        module, _, role = name.rpartition(".")
        inputs += [module] if role == "input_gain" else []
        shape = (1, -1) if role == "input_gain" else (-1, 1)
        tensors[f"base_model.model.{module}.ia3_l"] = np.ascontiguousarray(value.reshape(shape))
    config = {
        "peft_type": "IA3",
        "target_modules": adapter.modules,
        "feedforward_modules": sorted(inputs),
        "fan_in_fan_out": adapter.info.architecture in CONV1D_MODELS,
        "init_ia3_weights": True,
        "modules_to_save": None,
    }
    return _common(adapter) | config, tensors


def _prompt(adapter: Adapter) -> Content:
    """Prompt tuning."""
    info = adapter.info
    if info.architecture not in _PLAIN_EMBEDDINGS:
        raise UsageError(
            f"{adapter.path}: {info.architecture} does more than add positions to embeddings "
            f"before its first block, where the prompt is; PEFT cannot express that; set "
            f"`format` to safetensors"
        )
    (value,) = (v for name, v in adapter.tensors.items() if name.endswith(".prompt"))
    config = _virtual(adapter, "PROMPT_TUNING", value.shape[1], layers=1, heads=1)
    config["prompt_tuning_init"] = "RANDOM"
    return config, {"prompt_embeddings": np.ascontiguousarray(value)}


def _prefix(adapter: Adapter) -> Content:
    """Prefix tuning: (N, 2 L n D), of every block first the keys, then the values."""
    blocks = sorted(adapter.modules, key=lambda module: int(module.rpartition(".")[2]))
    parts = [
        adapter.tensors[f"{module}.prefix_{half}"].transpose(1, 0, 2)  # (N, n, D)
        for module in blocks
        for half in ("key", "value")
    ]
    _, heads, width = parts[0].shape
    config = _virtual(adapter, "PREFIX_TUNING", heads * width, layers=len(blocks), heads=heads)
    config |= {"encoder_hidden_size": heads * width, "prefix_projection": False}
    flat = [part.reshape(len(part), -1) for part in parts]
    return config, {"prompt_embeddings": np.concatenate(flat, axis=1)}


def _virtual(adapter: Adapter, kind: str, width: int, *, layers: int, heads: int) -> dict[str, Any]:
    if adapter.info.task != "causal-lm":
        raise UsageError(
            f"{adapter.path}: virtual tokens of an encoder are not the same in PEFT; set "
            f"`format` to safetensors"
        )
    return _common(adapter) | {
        "peft_type": kind,
        "num_virtual_tokens": len(adapter.info.scheme.tokens),
        "token_dim": width,
        "num_transformer_submodules": 1,
        "num_attention_heads": heads,
        "num_layers": layers,
    }


def _common(adapter: Adapter) -> dict[str, Any]:
    kinds = {"causal-lm": "CAUSAL_LM", "embedding": "FEATURE_EXTRACTION"}
    return {
        "task_type": kinds.get(adapter.info.task),
        "base_model_name_or_path": adapter.info.model,
        "inference_mode": True,
    }


_CONTENT: dict[SchemeKind, Callable[[Adapter], Content]] = {
    "lora": _lora,
    "lora-xs": _lora,
    "ia3": _ia3,
    "prompt": _prompt,
    "prefix": _prefix,
}


CONFIG_FILE = "adapter_config.json"


WEIGHTS_FILE = "adapter_model.safetensors"


PEFT_FILES = (CONFIG_FILE, WEIGHTS_FILE)


_KIND = FolderKind(CONFIG_FILE, frozenset({WEIGHTS_FILE, CARD_FILE}))


def save_peft(
    adapter: Adapter, folder: Path, force: bool = False, invocation_text: str = ""
) -> None:
    """Write adapter_config.json, adapter_model.safetensors and a model card.

    Args:
        adapter: what to write.
        folder: made; must not exist, or be an adapter folder that `force` replaces.
        force: replace it.
        invocation_text: text of the token from which on it acts, for the model card.
    Raises:
        UsageError: the folder is in the way, or PEFT has no such adapters.
        RunFileError: it cannot be written.
    """
    config, tensors = peft_content(adapter)
    usage = Usage(adapter.info, invocation_text)
    with new_folder(folder, force, _KIND) as made:
        write_tensors(made / WEIGHTS_FILE, tensors, {"format": "pt", **usage.metadata()})
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (made / CONFIG_FILE).write_text(text, encoding="utf-8")
        (made / CARD_FILE).write_text(usage.card("peft", "peft"), encoding="utf-8")
