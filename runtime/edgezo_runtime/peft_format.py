"""Adapters in PEFT's format, which transformers, vLLM and others load; written without torch."""

from __future__ import annotations

import json
from pathlib import Path

from edgezo_runtime.adapter import Adapter
from edgezo_runtime.adapter_folder import FolderKind, new_folder
from edgezo_runtime.peft_content import peft_content
from edgezo_runtime.tensor_file import write_tensors

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PEFT_FILES = (CONFIG_FILE, WEIGHTS_FILE)

_KIND = FolderKind(CONFIG_FILE, frozenset({WEIGHTS_FILE, "README.md"}))
"""PEFT's own have a model card."""


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
    config, tensors = peft_content(adapter)
    with new_folder(folder, force, _KIND) as made:
        write_tensors(made / WEIGHTS_FILE, tensors, {"format": "pt"})
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (made / CONFIG_FILE).write_text(text, encoding="utf-8")
