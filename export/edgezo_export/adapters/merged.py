"""Merge an adapter into the weights of its model, as a Hugging Face folder; without torch.

Tensors are read, changed and written a few rows at a time, whatever the size of the model. Shards,
names and files beside the weights stay as they are.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from edgezo_export.adapters.folds import Fold, folds
from edgezo_export.sources.float_bytes import FLOATS, float_bytes
from edgezo_export.sources.pointer_files import refuse_pointers
from edgezo_export.sources.safetensors_folder import (
    INDEX_FILE,
    SINGLE_FILE,
    SafetensorsFolder,
    Stored,
)
from edgezo_export.sources.tied_tensors import same_values
from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.adapters.output_folder import FolderKind, check_folder, new_folder
from edgezo_runtime.adapters.usage import CARD_FILE, Usage
from edgezo_runtime.errors import EdgezoError, RunFileError, UsageError

CONFIG_FILE = "config.json"

Dtype = Literal["keep", "fp32", "fp16", "bf16"]

_STORED_AS = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_BESIDE = frozenset({".json", ".jinja", ".model", ".txt"})
"""Endings of the files that are copied unchanged."""

_KIND = FolderKind(CONFIG_FILE, frozenset({CARD_FILE}), endings=_BESIDE | {".safetensors"})
_HEADS = ("lm_head.weight", "embed_out.weight")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")

_CHUNK = 1 << 20
"""Numbers in memory at once."""

_LEGACY = ((".LayerNorm.weight", ".LayerNorm.gamma"), (".LayerNorm.bias", ".LayerNorm.beta"))


@dataclass(frozen=True, slots=True)
class Merged:
    """Counts of what was written: all tensors, and those that the adapter changed."""

    tensors: int
    changed: int


def save_merged(
    adapter: Adapter,
    source: Path,
    folder: Path,
    dtype: Dtype = "keep",
    force: bool = False,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Merged:
    """Write the merged model, with a model card.

    Args:
        adapter: the adapter to merge.
        source: folder of the base model: config.json and .safetensors files.
        folder: the folder to write; it must not exist, or be a model that `force` replaces.
        dtype: type of the floats; "keep" keeps the type of each tensor.
        force: replace an existing model.
        tell: given the bytes of tensors that are written, and of all.
    Raises:
        UsageError: the folder exists, the adapter is not a change of weights, or the model is
            quantized.
        EdgezoError: the weights are damaged or belong to another model, or a number does not fit
            the type.
        RunFileError: the model cannot be written.
    Memory:
        A few times 4 MiB of a tensor, or a row; and the adapter.
    """
    changes = list(folds(adapter))
    if folder.resolve() == source.resolve():
        raise UsageError(f"{folder} holds the base model; choose another folder")
    check_folder(folder, force, _KIND)
    config = _config(source)
    checkpoint = SafetensorsFolder(source)
    own = _MergedTensors(checkpoint, _bound(changes, checkpoint.names(), adapter, source), dtype)
    with new_folder(folder, force, _KIND) as made:
        written, total = 0, own.size()
        tell(0, total)
        for file, names in own.shards().items():
            with (made / file.name).open("wb") as stream:
                for size in own.write(stream, names):
                    written += size
                    tell(written, total)
        _copy_others(source, made, config, dtype, own)
        card = Usage(adapter.info).card("transformers", "merged")
        (made / CARD_FILE).write_text(card, encoding="utf-8")
    return Merged(len(checkpoint.names()), len(own.changes))


class _MergedTensors:
    """The tensors to write.

    Args:
        checkpoint: of the base model.
        changes: of its tensors, by name.
        dtype: type of the floats.
    """

    def __init__(
        self, checkpoint: SafetensorsFolder, changes: dict[str, Fold], dtype: Dtype
    ) -> None:
        self.changes = changes
        self._checkpoint = checkpoint
        self._dtype = dtype

    def shards(self) -> dict[Path, list[str]]:
        """Return the tensor names of each file, in the order of the file."""
        found: dict[Path, list[str]] = {}
        for name in self._checkpoint.names():
            found.setdefault(self._checkpoint.stored(name).file, []).append(name)
        for names in found.values():
            names.sort(key=lambda name: self._checkpoint.stored(name).offset)
        return found

    def has_trained_head(self) -> bool:
        """Has the checkpoint a head with other values than its embedding?"""
        names, checkpoint = self._checkpoint.names(), self._checkpoint
        head = next((name for name in names if name in _HEADS), None)
        embedding = next((name for name in names if name.endswith(_EMBEDDINGS)), None)
        if head is None or embedding is None:
            return False
        alike = checkpoint.shape(head) == checkpoint.shape(embedding)
        return alike and not same_values(head, embedding, checkpoint)

    def size(self) -> int:
        """Return the bytes of all tensors."""
        return sum(self._length(name) for name in self._checkpoint.names())

    def write(self, stream: BinaryIO, names: list[str]) -> Iterator[int]:
        """Write a file with some of the tensors; yields the bytes of each part of them."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in names:
            stored = self._checkpoint.stored(name)
            start, end = end, end + self._length(name)
            header[name] = {
                "dtype": self._dtype_of(stored),
                "shape": list(stored.shape),
                "data_offsets": [start, end],
            }
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for chunk in self._chunks(name):
                stream.write(chunk)
                yield len(chunk)

    def _dtype_of(self, stored: Stored) -> str:
        if stored.dtype not in FLOATS or self._dtype == "keep":
            return stored.dtype
        return _STORED_AS[self._dtype]

    def _length(self, name: str) -> int:
        stored = self._checkpoint.stored(name)
        kind = self._dtype_of(stored)
        return math.prod(stored.shape) * FLOATS[kind] if kind in FLOATS else stored.length

    def _chunks(self, name: str) -> Iterator[bytes]:
        stored, fold = self._checkpoint.stored(name), self.changes.get(name)
        if fold is None and self._dtype_of(stored) == stored.dtype:
            yield from _copied(stored)
            return
        count = stored.shape[0] if stored.shape else 1
        step = max(1, _CHUNK // max(1, math.prod(stored.shape[1:])))
        for start in range(0, count, step):
            at = slice(start, min(start + step, count))
            try:
                if stored.shape:
                    rows = self._checkpoint.read_rows(name, at.start, at.stop)
                else:
                    rows = self._checkpoint.read(name)
                yield float_bytes(rows if fold is None else fold(rows, at), self._dtype_of(stored))
            except ValueError as error:
                raise EdgezoError(
                    f"{stored.file}: {name!r}: {error}; name the model that was tuned"
                ) from error
            except OverflowError as error:
                raise EdgezoError(
                    f"{stored.file}: {name!r}: {error}; use `dtype` fp32 or bf16"
                ) from error


def _copied(stored: Stored) -> Iterator[bytes]:
    with stored.file.open("rb") as file:
        file.seek(stored.offset)
        left = stored.length
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise EdgezoError(f"{stored.file}: ends inside a tensor; download the model again")
            left -= len(chunk)
            yield chunk


def _bound(
    changes: list[tuple[str, Fold, bool]], names: Collection[str], adapter: Adapter, source: Path
) -> dict[str, Fold]:
    """Map the changes to the names in the checkpoint.

    Raises:
        EdgezoError: the checkpoint lacks a parameter.
    """
    found: dict[str, Fold] = {}
    known = frozenset(names)
    for parameter, fold, needed in changes:
        name = next((name for name in _spellings(parameter, known) if name in known), None)
        if name is not None:
            found[name] = fold
        elif needed:
            remedy = "name the model that was tuned"
            if parameter.endswith(".bias"):
                remedy = "the model has no such bias to add to; use `format` safetensors"
            raise EdgezoError(
                f"{source}: no tensor {parameter!r:.200}, which {adapter.path} changes; {remedy}"
            )
    return found


def _spellings(parameter: str, known: frozenset[str]) -> Iterator[str]:
    """Yield the spellings of a parameter in checkpoints of the base model or of old versions."""
    prefixes = {name.partition(".")[0] for name in known}
    for legacy in ((), *_LEGACY):
        name = parameter
        if legacy:
            if not parameter.endswith(legacy[0]):
                continue
            name = parameter.removesuffix(legacy[0]) + legacy[1]
        yield name
        yield name.partition(".")[2]
        yield from (f"{prefix}.{name}" for prefix in sorted(prefixes))


def _config(source: Path) -> dict[str, Any]:
    refuse_pointers(source)
    try:
        config = json.loads((source / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EdgezoError(f"{source / CONFIG_FILE}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise EdgezoError(f"{source / CONFIG_FILE}: not an object")
    if config.get("quantization_config") is not None:
        raise UsageError(
            f"{source}: quantized already; name the unquantized model it was made from"
        )
    return config


def _copy_others(
    source: Path, made: Path, config: dict[str, Any], dtype: Dtype, own: _MergedTensors
) -> None:
    try:
        for file in sorted(source.iterdir()):
            if file.suffix in _BESIDE and file.is_file() and file.name != INDEX_FILE:
                shutil.copyfile(file, made / file.name)
        if not (made / SINGLE_FILE).is_file():
            index = json.loads((source / INDEX_FILE).read_text(encoding="utf-8"))
            index["metadata"] = {**(index.get("metadata") or {}), "total_size": own.size()}
            (made / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        changed = dict(config)
        if dtype != "keep":
            changed.pop("torch_dtype", None)
            changed["dtype"] = _NAMES[dtype]
        if config.get("tie_word_embeddings") is not False and own.has_trained_head():
            changed["tie_word_embeddings"] = False  # or some programs would drop the head
        if changed != config:
            text = json.dumps(changed, indent=2, ensure_ascii=False) + "\n"
            (made / CONFIG_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFileError(f"{made}: cannot be written: {error.strerror}") from error
