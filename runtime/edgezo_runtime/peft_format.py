"""Adapters in PEFT's format, which transformers, vLLM and others load; written without torch."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from edgezo_runtime.adapter import Adapter
from edgezo_runtime.errors import RunFileError, UsageError
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
    check_output(folder, force)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            save_file(tensors, made / WEIGHTS_FILE, {"format": "pt"})
            text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
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
