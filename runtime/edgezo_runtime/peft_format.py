"""Adapters in PEFT's format, which transformers, vLLM and others load; written without torch."""

from __future__ import annotations

import json
from pathlib import Path

from edgezo_runtime.adapter import Adapter
from edgezo_runtime.adapter_folder import new_folder
from edgezo_runtime.peft_content import peft_content

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def save_peft(adapter: Adapter, folder: Path, force: bool = False) -> None:
    """Write adapter_config.json and adapter_model.safetensors.

    Args:
        adapter: what to write.
        folder: made; must not exist, or be an adapter folder that `force` replaces.
        force: replace it.
    Raises:
        UsageError: the folder is in the way, or PEFT has no such adapters.
        RunFileError: it cannot be written.
    """
    from safetensors.numpy import save_file

    config, tensors = peft_content(adapter)
    with new_folder(folder, force, CONFIG_FILE) as made:
        save_file(tensors, made / WEIGHTS_FILE, {"format": "pt"})
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (made / CONFIG_FILE).write_text(text, encoding="utf-8")
