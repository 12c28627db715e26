"""The manifest of a bundle: the only contract between the exporter and the runtime (version 7).

Importing this module loads no array library.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Literal

from edgezo_runtime.bundle.graph_check import (
    EXPORT_AGAIN,
    check_backward,
    check_fed,
    check_graph,
    check_path,
    require,
    unique,
)
from edgezo_runtime.bundle.manifest_types import (
    DTYPES,
    PAST,
    SLOTS,
    BackwardInfo,
    Binding,
    FileInfo,
    GpuGraphs,
    GraphInfo,
    Graphs,
    ModelInfo,
    TensorInfo,
    TokenizerInfo,
)
from edgezo_runtime.bundle.trainables import (
    MAX_AXIS,
    MAX_BLOCKS,
    SCHEME_KINDS,
    SchemeInfo,
    SchemeKind,
    TrainableInfo,
    TrainableRole,
    scheme_problem,
    trainable_problem,
)
from edgezo_runtime.errors import BundleError
from edgezo_runtime.system.typed_json import JsonShapeError, decode, encode, parse_object

__all__ = [
    "DTYPES",
    "FORMAT",
    "MANIFEST_FILE",
    "PAST",
    "READABLE",
    "SCHEME_KINDS",
    "SLOTS",
    "TRAINABLE_FILE",
    "VERSION",
    "WEIGHTS_FILE",
    "Binding",
    "FileInfo",
    "GpuGraphs",
    "GraphInfo",
    "Graphs",
    "Manifest",
    "ModelInfo",
    "SchemeInfo",
    "SchemeKind",
    "TensorInfo",
    "TokenizerInfo",
    "TrainableInfo",
    "TrainableRole",
    "check",
    "copy_bytes",
]

FORMAT = "edgezo-bundle"
VERSION = 7
READABLE = (2, 3, 4, 5, 6, 7)
"""Versions that can be read; version 2 has no scheme but LoRA, version 3 has no logits, version 4
has no model with two sets of rotary frequencies, version 5 has weights in int8 and fp32 only,
version 6 has no kept codes and no graphs for GPUs."""
MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE = "weights.safetensors"
TRAINABLE_FILE = "trainable.safetensors"


_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in a bundle. Field order is the order in manifest.json, after format and version.

    Attributes:
        created_by: the program that exported the bundle, e.g. "edgezo 0.1.0".
        context: names of the tensors that the prologue makes once and all blocks take.
        base_config: the model's Hugging Face config.json, for adapters.
        files: every file of the bundle but the manifest, keyed by its path with forward slashes.
        backward: one graph per kind of block and per scorer, or the reason why there are none.
        group_size: inputs of a group of w4 and w8, where a layer allows so many; else None.
        gpu: the graphs for GPUs, or the reason why there are none.
    """

    created_by: str
    model: ModelInfo
    quant: Literal["int8", "w4", "w8", "fp16", "fp32", "keep"]
    graphs: Graphs
    trainables: tuple[TrainableInfo, ...]
    scheme: SchemeInfo
    context: tuple[str, ...]
    tokenizer: TokenizerInfo
    base_config: dict[str, object]
    files: dict[str, FileInfo]
    backward: tuple[BackwardInfo, ...] | str = "the edgezo that exported the bundle made none"
    group_size: int | None = None
    gpu: GpuGraphs | str = "the edgezo that exported the bundle made none"

    def to_json(self) -> str:
        """The text of manifest.json.

        Raises:
            BundleError: the manifest contradicts itself, or base_config cannot be written as JSON.
        """
        check(self)
        content = {"format": FORMAT, "version": VERSION, **encode(self)}
        try:
            return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        except (TypeError, ValueError) as error:
            raise BundleError(f"manifest: base_config cannot be written: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read the text of manifest.json.

        The format and version are checked before anything else.

        Raises:
            BundleError: not JSON, not a bundle, another version, or the content is wrong;
                the message names the key.
        """
        try:
            content = parse_object(text)
            _check_version(content)
            del content["format"], content["version"]
            manifest = decode(cls, content)
        except JsonShapeError as error:
            raise BundleError(f"manifest: {error}; {EXPORT_AGAIN}") from error
        check(manifest)
        return manifest


def copy_bytes(manifest: Manifest) -> int:
    """Bytes of the largest block's trainable tensors, as float32."""
    blocks = [0] * manifest.model.num_blocks
    for info in manifest.trainables:
        blocks[info.block] += 4 * math.prod(info.shape) if info.trains else 0
    return max(blocks)


def _check_version(content: dict[str, object]) -> None:
    if content.get("format") != FORMAT:
        found = json.dumps(content.get("format"))[:60]
        raise JsonShapeError(f'format: expected "{FORMAT}", found {found}')
    version = content.get("version")
    if type(version) is int and version in READABLE:
        return
    writer = str(content.get("created_by", "an unknown program"))[:60]
    if type(version) is int and version > VERSION:
        remedy = f"install the edgezo that wrote it ({writer}) or newer, or {EXPORT_AGAIN}"
    else:
        remedy = EXPORT_AGAIN
    raise BundleError(
        f"manifest: version {json.dumps(version)[:20]} (written by {writer}), "
        f"edgezo {_own_version()} reads versions {READABLE[0]} to {VERSION}; {remedy} with "
        f"edgezo {_own_version()}"
    )


def _own_version() -> str:
    from importlib import metadata  # costs 20 ms, needed for a message only

    try:
        return metadata.version("edgezo")
    except metadata.PackageNotFoundError:
        return "(this one)"


def check(manifest: Manifest) -> None:
    """Check that the parts of a manifest agree with each other.

    Raises:
        BundleError: naming the first part that is wrong.
    """
    _check_files(manifest)
    _check_model(manifest)
    for where, graph in [*manifest.graphs.named(), *_gpu(manifest)]:
        check_graph(where, graph)
        check_fed(where, graph, manifest.context)
    check_backward(_backward(manifest), manifest.graphs.named())
    if not isinstance(manifest.gpu, str):
        check_backward(manifest.gpu.derived(), _on_gpus(manifest), "gpu.backward")
    _check_context(manifest)
    _check_trainables(manifest)
    _check_tokenizer(manifest)


def _check_files(manifest: Manifest) -> None:
    for path, info in manifest.files.items():
        check_path(path)
        require(path != MANIFEST_FILE, "files: the manifest cannot list itself")
        require(info.bytes >= 0, f"files.{path}: {info.bytes} bytes")
        require(_SHA256.fullmatch(info.sha256), f"files.{path}: {info.sha256!r:.80} is no sha256")
    tokenizer = manifest.tokenizer
    needed = [WEIGHTS_FILE, TRAINABLE_FILE, tokenizer.file]
    needed += [tokenizer.chat_template] if tokenizer.chat_template is not None else []
    needed += [graph.file for _, graph in [*manifest.graphs.named(), *_gpu(manifest)]]
    on_gpus = () if isinstance(manifest.gpu, str) else manifest.gpu.derived()
    for derived in (*_backward(manifest), *on_gpus):
        needed += [derived.file] if derived.plain is None else [derived.file, derived.plain]
    for path in needed:
        check_path(path)
        require(path in manifest.files, f"files: {path!r} is missing")


def _check_model(manifest: Manifest) -> None:
    model = manifest.model
    for name in ("hidden_size", "vocab_size", "max_seq", "num_blocks"):
        value = getattr(model, name)
        require(value > 0, f"model.{name}: {value} is not above zero")
        limit = MAX_BLOCKS if name == "num_blocks" else MAX_AXIS
        require(value <= limit, f"model.{name}: {value} is more than {limit}")
    switch = model.rotary_switch
    require(switch is None or switch > 0, f"model.rotary_switch: {switch} is not above zero")
    size = manifest.group_size
    require(size is None or 0 < size <= MAX_AXIS, f"group_size: {size} is not above zero")
    for name, text in (
        ("created_by", manifest.created_by),
        ("model.id", model.id),
        ("model.architecture", model.architecture),
        ("model.class_name", model.class_name),
    ):
        require(text.isprintable(), f"{name}: {text[:80]!r} has characters that do not print")
    listed = {len(manifest.graphs.blocks)}
    listed |= set() if isinstance(manifest.gpu, str) else {len(manifest.gpu.blocks)}
    odd = listed - {model.num_blocks}
    require(not odd, f"model.num_blocks: {model.num_blocks}, graphs {min(odd, default=0)}")


def _backward(manifest: Manifest) -> tuple[BackwardInfo, ...]:
    return () if isinstance(manifest.backward, str) else manifest.backward


def _gpu(manifest: Manifest) -> list[tuple[str, GraphInfo]]:
    return [] if isinstance(manifest.gpu, str) else manifest.gpu.named()


def _on_gpus(manifest: Manifest) -> list[tuple[str, GraphInfo]]:
    """The forward graphs that a GPU runs: its own, and the scorers."""
    shared = [(where, graph) for where, graph in manifest.graphs.named() if where[:5] == "score"]
    return [*_gpu(manifest), *shared]


def _check_context(manifest: Manifest) -> None:
    unique(manifest.context, "context")
    made = {tensor.name for tensor in manifest.graphs.prologue.outputs}
    lost = set(manifest.context) - made
    require(not lost, f"context: the prologue does not make {min(lost, default='')!r}")


def _check_trainables(manifest: Manifest) -> None:
    scheme = manifest.scheme
    problem = scheme_problem(scheme, manifest.model.vocab_size)
    require(problem is None, f"scheme.{problem}")
    unique((info.name for info in manifest.trainables), "trainables")
    by_block: dict[int, set[str]] = {index: set() for index in range(manifest.model.num_blocks)}
    for info in manifest.trainables:
        place = f"trainables.{info.name}"
        require(info.block in by_block, f"{place}: block {info.block} does not exist")
        by_block[info.block].add(info.name)
        problem = trainable_problem(info, scheme)
        require(problem is None, f"{place}: {problem}")
    size = sum(4 * math.prod(info.shape) for info in manifest.trainables)
    listed = manifest.files[TRAINABLE_FILE].bytes
    require(size <= listed, f"trainables: {size} bytes in all, {TRAINABLE_FILE} has {listed}")
    for where, graph in [*manifest.graphs.named(), *_gpu(manifest)]:
        index = int(where[7:-1]) if where.startswith("blocks[") else None
        expected = by_block[index] if index is not None else set()
        odd = expected.symmetric_difference(binding.tensor for binding in graph.trainables)
        require(not odd, f"graphs.{where}: trainables differ in {min(odd, default='')!r}")


def _check_tokenizer(manifest: Manifest) -> None:
    info = manifest.tokenizer
    for token in (info.pad_id, *info.eos_ids, info.bos_id, info.unk_id, info.mask_id):
        inside = token is None or 0 <= token < manifest.model.vocab_size
        require(inside, f"tokenizer: id {token} with a vocabulary of {manifest.model.vocab_size}")
    require(info.bos_id is not None or not info.add_bos, "tokenizer: add_bos without bos_id")
