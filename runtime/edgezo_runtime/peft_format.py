"""Adapters in PEFT's format, which transformers, vLLM and others load; written without torch."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgezo_runtime.adapter import Adapter
from edgezo_runtime.errors import RunFileError, UsageError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_CONV1D_MODELS = frozenset({"gpt2", "openai-gpt"})
"""Architectures whose linear layers are transformers' Conv1D, which stores (in, out)."""


def save_peft(adapter: Adapter, folder: Path, force: bool = False) -> None:
    """Write adapter_config.json and adapter_model.safetensors.

    Args:
        adapter: what to write.
        folder: made; must not exist, or be an adapter folder that `force` replaces.
        force: replace it.
    Raises:
        UsageError: the folder is in the way.
        RunFileError: it cannot be written.
    """
    from safetensors.numpy import save_file

    check_output(folder, force)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            save_file(_tensors(adapter), made / WEIGHTS_FILE, {"format": "pt"})
            text = json.dumps(peft_config(adapter), indent=2, ensure_ascii=False) + "\n"
            (made / CONFIG_FILE).write_text(text, encoding="utf-8")
            for file in made.iterdir():
                file.chmod(0o644)
            made.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise RunFileError(f"{folder}: cannot be written: {error.strerror}") from error


def check_output(folder: Path, force: bool) -> None:
    """Refuse to write over what is there.

    Raises:
        UsageError: it exists and `force` is off, or it is not an adapter folder.
    """
    if not folder.exists():
        return
    if not force:
        raise UsageError(f"{folder}: exists; choose another place or pass --force")
    if not folder.is_dir():
        raise UsageError(f"{folder}: a file; the peft format is a folder")
    if any(folder.iterdir()) and not (folder / CONFIG_FILE).is_file():
        raise UsageError(f"{folder}: not an adapter folder; --force replaces only those")


def peft_config(adapter: Adapter) -> dict[str, Any]:
    """The content of adapter_config.json.

    Full module paths are named where only some blocks are adapted, and in encoders, whose heads
    have layers of the same names as their blocks; short names otherwise. An adapter that acts on
    answers only is an activated LoRA (PEFT 0.18 and newer).

    Raises:
        UsageError: PEFT has no way to say on which tokens the adapter acts.
    """
    info = adapter.info
    causal = info.task == "causal-lm"
    if info.scope == "answer" and not (causal and info.invocation):
        why = "prompts end in different tokens" if causal else "it is not a causal model"
        raise UsageError(
            f"{adapter.path}: acts on answers only, which PEFT cannot express here ({why}); "
            f"tune with --scope all"
        )
    short = sorted({module.rpartition(".")[2] for module in adapter.modules})
    alpha: float = int(info.alpha) if float(info.alpha).is_integer() else info.alpha
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if causal else None,
        "base_model_name_or_path": info.model,
        "r": info.rank,
        "lora_alpha": alpha,
        "target_modules": short if causal and info.complete else sorted(adapter.modules),
        "fan_in_fan_out": info.architecture in _CONV1D_MODELS,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    if info.scope == "answer":
        config["alora_invocation_tokens"] = list(info.invocation)
    return config


def _tensors(adapter: Adapter) -> dict[str, Any]:
    """lora_A (r, in) and lora_B (out, r), as PEFT has them for Conv1D layers too."""
    return {
        f"base_model.model.{name}.weight": np.ascontiguousarray(value)
        for name, value in adapter.tensors.items()
    }
