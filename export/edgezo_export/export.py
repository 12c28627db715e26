"""Export a model to a bundle: trace it, build its graphs, and write its weights."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from transformers import PretrainedConfig, PreTrainedModel

from edgezo_export.bundle_graphs import BundleGraphs, Progress, build_graphs
from edgezo_export.calibration.calibrated_codes import CalibratedCodes
from edgezo_export.calibration.calibration_text import MOST_ROWS, TOKENS, calibration_rows
from edgezo_export.errors import UnsupportedModelError
from edgezo_export.operators.layers import Quant
from edgezo_export.quantization.group_codes import GROUP_SIZES, group_size_of
from edgezo_export.quantization.tensor_log import TensorLog
from edgezo_export.quantization.weights_file import MakeCodes, write_weights
from edgezo_export.quantization.weights_plan import PlannedTensor
from edgezo_export.schemes.lora import Lora
from edgezo_export.schemes.prefix_states import KeysValues
from edgezo_export.schemes.scheme import ModelFacts, Origin, Scheme
from edgezo_export.schemes.trainable_file import write_initial
from edgezo_export.sources.architecture import Task, model_class, model_sizes
from edgezo_export.sources.model_source import Source, TensorReader, open_source
from edgezo_export.trace.trace import Trace, trace_model
from edgezo_export.unfinished import check_output, unfinished
from edgezo_runtime.bundle.bundle import describe_files
from edgezo_runtime.bundle.manifest import (
    MANIFEST_FILE,
    TRAINABLE_FILE,
    WEIGHTS_FILE,
    Manifest,
)
from edgezo_runtime.bundle.manifest_types import ModelInfo, TokenizerInfo
from edgezo_runtime.errors import EdgezoError, UsageError

PARAMETERS_OF_W4 = 1_000_000_000
"""From so many parameters on, weights have 4 bits unless another form is asked for."""

_PROGRAMS = ("numpy", "onnxruntime", "transformers", "torch", "tokenizers", "gguf")
"""Packages that the bytes of a bundle depend on."""

Warn = Callable[[str], None]
"""Takes a warning."""


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """Settings of an export.

    Attributes:
        quant: form of the frozen weights; auto is int8 below a billion parameters, else w4.
        group_size: inputs of a group of w4 and w8.
        calibration_rows: rows of text that the errors of w4 are corrected on; 0 rounds each weight
            by itself.
        scheme: the trainable tensors.
        task: the head of the model; auto is masked-lm for classes named *MaskedLM, classification
            for *ForSequenceClassification, else causal-lm.
        force: replace an existing bundle.
    """

    quant: Quant | Literal["auto"] = "auto"
    group_size: int = 32
    calibration_rows: int = 32
    scheme: Scheme = field(default_factory=Lora)
    task: Task = "auto"
    force: bool = False


_DEFAULTS = ExportConfig()


def export_bundle(
    model: str | Source,
    output: Path,
    config: ExportConfig | None = None,
    progress: Progress | None = None,
    warn: Warn | None = None,
) -> Manifest:
    """Export a Hugging Face id, a local folder or a .gguf file to a bundle.

    The bundle appears under its name only after it is complete. An export that was killed goes on
    where it was, if it is called again with the same model and settings.

    Args:
        model: what to export, by name or opened.
        output: folder to make.
        config: settings; the defaults of `ExportConfig` if None.
        progress: called at every stage.
        warn: called with what the user should know about the model; None: `warnings.warn`.
    Returns:
        The manifest of the new bundle.
    Raises:
        UsageError: `output` exists and force is off, a setting is out of range, or the scheme does
            not go with the model.
        UnsupportedModelError: the architecture cannot be split into blocks.
        EdgezoError: the model cannot be found or read, or the bundle cannot be written.
    Memory:
        The trace (about 440 MB with torch) plus buffers. For int8, w8 and fp16 of safetensors they
        do not grow with the model (587 MB in all for 1.1 billion parameters in int8). Calibrated
        w4 also holds what `CalibratedCodes` says, which grows with the size of a block and of the
        vocabulary, and not with the number of blocks.
    """
    config = config or ExportConfig()
    check_settings(config)
    told: Warn = warn or (lambda text: warnings.warn(text, stacklevel=3))
    check_output(output, config.force)
    source = model if isinstance(model, Source) else open_source(model)
    try:
        with unfinished(output) as place:
            manifest = _write(source, place.bundle, config, progress, told)
            place.finish(config.force)
    except OSError as error:
        raise EdgezoError(
            f"{error.filename or output}: {error.strerror or error}; no bundle was written"
        ) from error
    return manifest


def check_settings(config: ExportConfig) -> None:
    """Refuse settings out of range.

    Raises:
        UsageError: naming one.
    """
    if config.group_size not in GROUP_SIZES:
        sizes = ", ".join(str(size) for size in sorted(GROUP_SIZES))
        raise UsageError(f"`group_size` {config.group_size}: must be one of {sizes}")
    if not 0 <= config.calibration_rows <= MOST_ROWS:
        raise UsageError(
            f"`calibration_rows` {config.calibration_rows}: must be from 0 to {MOST_ROWS}"
        )


def _write(
    source: Source, folder: Path, config: ExportConfig, progress: Progress | None, warn: Warn
) -> Manifest:
    """Write all files of a bundle to a folder that has none of them, but perhaps weights."""
    tell: Progress = progress or (lambda stage, done, total: None)
    tell("trace", 0, 1)
    cls, task = model_class(source.config, config.task)
    given = source.tokenizer
    source = _with_room(source, cls, source.tokens_of(given), warn)
    tokenizer = source.save_tokenizer(folder, given)
    sizes = model_sizes(source.config)
    trace = _trace(source, cls, task == "causal-lm", sizes["max_seq"], warn)
    tell("trace", 1, 1)
    scheme = config.scheme.resolve(facts_of(trace, source.config.model_type, sizes, tokenizer))
    pooling = source.pooling() if task == "embedding" else None
    quant = chosen_quant(config.quant, source)
    _tell_unused_settings(config, quant, warn)
    widths = sizes["hidden_size"], sizes["vocab_size"]
    own = build_graphs(
        trace,
        scheme,
        quant,
        *widths,
        pooling,
        config.group_size,
        source.form if quant == "keep" else None,
    )
    _tell_unused(source, own, trace, warn)
    tell_larger(own.planned(), quant, config.group_size, warn)
    graphs = own.save(folder, tell)
    backward = own.save_backward(folder, graphs)
    gpu = own.save_gpu(folder, graphs)
    log = TensorLog(folder.parent, log_facts(source.stamp(), config), warn)
    write_weights(
        folder / WEIGHTS_FILE,
        own.planned(),
        source,
        lambda done, total: tell("weights", done, total),
        _codes(own, source, given, tokenizer, sizes["max_seq"], config, tell, log)
        if quant == "w4" and config.calibration_rows
        else None,
        log,
        source.read_codes,
    )
    origin = Origin(source, KeysValues(folder, graphs).of)
    write_initial(folder / TRAINABLE_FILE, own.edits, origin)
    info = scheme.info()
    model = ModelInfo(
        id=source.model_id,
        architecture=source.config.model_type,
        class_name=cls.__name__,
        task=task,
        num_blocks=len(trace.layers),
        tied_embeddings=trace.embedding in trace.tied.values(),
        hidden_size=sizes["hidden_size"],
        vocab_size=sizes["vocab_size"],
        max_seq=sizes["max_seq"] - len(info.tokens),
        rotary_switch=trace.rotary_switch,
    )
    paths = sorted(folder.rglob("*"))
    names = [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
    manifest = Manifest(
        created_by=created_by(),
        model=model,
        quant=quant,
        graphs=graphs,
        trainables=own.trainables,
        scheme=info,
        context=tuple(t.name for t in graphs.prologue.outputs if t.name != "hidden"),
        tokenizer=tokenizer,
        base_config=source.config_dict,
        files=describe_files(folder, names),
        backward=backward,
        group_size=config.group_size if quant in ("w4", "w8") else None,
        gpu=gpu,
    )
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def log_facts(stamp: str, config: ExportConfig) -> dict[str, str]:
    """What the bytes of a bundle depend on, for the log of written tensors.

    Args:
        stamp: of the weights that are read.
        config: the settings.
    """
    programs = [f"{name} {_version(name)}" for name in _PROGRAMS]
    return {
        "checkpoint": stamp,
        "setting": repr(replace(config, force=False)),
        "version": ", ".join([created_by(), *programs, _sources_digest()]),
    }


def _sources_digest() -> str:
    """Return the SHA-256 of this package's sources: those of a source tree change as they may."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def chosen_quant(wanted: Quant | Literal["auto"], source: Source) -> Quant:
    """Choose the form of the weights by the size of the model, where it is left open."""
    if wanted != "auto":
        return wanted
    return "int8" if source.parameters() < PARAMETERS_OF_W4 else "w4"


def _codes(
    graphs: BundleGraphs,
    source: Source,
    tokenizer: Any,
    info: TokenizerInfo,
    max_seq: int,
    config: ExportConfig,
    tell: Progress,
    log: TensorLog,
) -> MakeCodes:
    """Prepare the 4-bit codes; they are made when they are written."""

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    rows = rows_to_calibrate_with(encode, info, config.calibration_rows, max_seq)
    return calibrated(graphs, source, rows, config, tell, log)


def calibrated(
    graphs: BundleGraphs,
    source: TensorReader,
    rows: npt.NDArray[np.int64],
    config: ExportConfig,
    tell: Progress,
    log: TensorLog,
) -> MakeCodes:
    """Return what makes 4-bit codes that are calibrated with rows (R, S), when they are written."""
    codes = CalibratedCodes(
        graphs.calibration,
        source,
        rows,
        config.group_size,
        lambda done, total: tell("calibration", done, total),
        log.folder,
        log=log,
    )
    return codes.codes


def rows_to_calibrate_with(
    encode: Callable[[str], list[int]], info: TokenizerInfo, count: int, max_seq: int
) -> npt.NDArray[np.int64]:
    """Cut the rows that 4-bit codes are calibrated with, (R, S) int64.

    Args:
        encode: makes tokens of a text, without special ones.
        info: the special ones.
        count: R.
        max_seq: most tokens of a row.
    """
    return calibration_rows(
        encode,
        count,
        min(TOKENS, max_seq),
        info.bos_id if info.add_bos else None,
    )


def _tell_unused(source: Source, graphs: BundleGraphs, trace: Trace, warn: Warn) -> None:
    """Warn of further heads and embeddings, such as those of speculative decoding."""
    read = {name for tensor in graphs.planned() for name in tensor.sources}
    unused = source.unused_tables({*read, *trace.tied})
    if unused:
        warn(
            f"{len(unused)} tensors of the checkpoint with a row per token are not used, first "
            f"{unused[0]!r}: architecture {source.config.model_type!r} has no place for them"
        )


def _tell_unused_settings(config: ExportConfig, quant: Quant, warn: Warn) -> None:
    """Warn of settings that the form of the weights has no use for."""
    for name, forms in (("group_size", ("w4", "w8")), ("calibration_rows", ("w4",))):
        if quant not in forms and getattr(config, name) != getattr(_DEFAULTS, name):
            warn(
                f"`{name}` {getattr(config, name)} changes nothing: the weights are {quant}, and "
                f"it is a setting of {' and '.join(forms)}"
            )


def tell_larger(
    planned: Iterable[PlannedTensor], quant: Quant, group_size: int, warn: Warn
) -> None:
    """Warn of matrices whose inputs do not fall into groups."""
    kinds = {"w4": ("linear_int8", "8 bits (int8)"), "w8": ("concat", "32 bits (fp32)")}
    if quant not in kinds:
        return
    kind, form = kinds[quant]
    found = [
        tensor
        for tensor in planned
        if tensor.kind == kind
        and len(tensor.shape) == 2
        and group_size_of(tensor.shape[0], group_size) is None
    ]
    if found:
        warn(
            f"{len(found)} matrices have {form} in place of {quant}, first {found[0].name!r}: "
            f"{min(GROUP_SIZES)} does not divide its {found[0].shape[0]} inputs"
        )


def _with_room(source: Source, cls: type[PreTrainedModel], tokens: int, warn: Warn) -> Source:
    """Give the model rows for all tokens of the tokenizer, where it lacks some."""
    rows = int(source.config.get_text_config().vocab_size)
    if tokens <= rows:
        return source
    grown = source.grown(cls, tokens)
    warn(
        f"the tokenizer has {tokens} tokens, the model {rows}: {tokens - rows} rows of embedding "
        f"and head are added, the mean of the others, as transformers does; resize the model in "
        f"the same way (resize_token_embeddings({tokens})) before you load an adapter there"
    )
    return grown


def _trace(
    source: Source, cls: type[PreTrainedModel], causal: bool, max_seq: int, warn: Warn
) -> Trace:
    """Trace the model; its head is the embedding only where the checkpoint has no other.

    Raises:
        UnsupportedModelError: it cannot be traced.
    """

    def separate(tied: Mapping[str, str]) -> list[str]:
        found = source.separate(tied)
        for own, shared in found.values():
            warn(
                f"the config ties {own} to {shared} (tie_word_embeddings), but the checkpoint has "
                f"other values for it: those are used, as transformers does; remove the tensor "
                f"from the checkpoint if it is not meant"
            )
        return list(found)

    trace = traced(source.config, cls, causal, max_seq, separate)
    if trace.dynamic_rotary:
        warn(
            f"the model changes its rotary frequencies (rope type dynamic) for sequences of more "
            f"than {max_seq} tokens, with every length; a bundle takes no longer ones"
        )
    return trace


def traced(
    config: PretrainedConfig,
    cls: type[PreTrainedModel],
    causal: bool,
    max_seq: int,
    separate: Callable[[Mapping[str, str]], list[str]],
) -> Trace:
    """Trace a model; the arguments are those of `trace_model`.

    Raises:
        UnsupportedModelError: it cannot be traced.
    """
    try:
        return trace_model(config, cls, causal=causal, max_seq=max_seq, separate=separate)
    except EdgezoError:
        raise
    except Exception as error:  # a model's own code may raise anything while it is traced
        raise UnsupportedModelError(
            f"architecture {config.model_type!r} ({cls.__name__}) cannot be traced: "
            f"{_reason(error)}"
        ) from error


def _reason(error: BaseException) -> str:
    """Return the first line of the first error in a chain, without terminal colors."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def facts_of(
    trace: Trace, architecture: str, sizes: Mapping[str, int], tokenizer: TokenizerInfo
) -> ModelFacts:
    """Collect what a scheme may ask about a model."""
    known = (tokenizer.pad_id, tokenizer.bos_id, tokenizer.unk_id, tokenizer.mask_id)
    special = {token for token in (*known, *tokenizer.eos_ids) if token is not None}
    return ModelFacts(
        architecture=architecture,
        layers=tuple(_layer_names(trace)),
        num_blocks=len(trace.layers),
        hidden_size=sizes["hidden_size"],
        vocab_size=sizes["vocab_size"],
        max_seq=sizes["max_seq"],
        special_ids=frozenset(special),
        embedding=trace.embedding,
    )


def _layer_names(trace: Trace) -> list[str]:
    """Return the last components of the names of the linear layers inside the blocks."""
    found = {
        str(node.inputs[1].name).removesuffix(".weight").rsplit(".", 1)[-1]
        for node in trace.model.graph
        if node.op_type == "Linear" and node.inputs[1] is not None
        if any(f".{layer}." in f".{node.inputs[1].name}" for layer in trace.layers)
    }
    return sorted(found)


def created_by() -> str:
    """Name this program and its version."""
    return f"edgezo {_version('edgezo') or '(source tree)'}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
