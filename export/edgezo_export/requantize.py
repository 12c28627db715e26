"""Make a bundle with smaller weights from one with float weights, without the checkpoint.

The model is traced again from the config that the manifest has. Graphs are those of a new export;
tokenizer and initial values of the trainables are taken over as they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from edgezo_export.bundle_graphs import BundleGraphs, Progress, build_graphs
from edgezo_export.export import (
    ExportConfig,
    Warn,
    calibrated,
    check_settings,
    created_by,
    facts_of,
    log_facts,
    rows_to_calibrate_with,
    tell_larger,
    traced,
)
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.operators.layers import Quant
from edgezo_export.quantization.stored_weights import StoredWeights
from edgezo_export.quantization.tensor_log import TensorLog
from edgezo_export.quantization.weights_file import MakeCodes, write_weights
from edgezo_export.schemes import scheme_of
from edgezo_export.sources.architecture import model_sizes
from edgezo_export.trace.trace import Trace
from edgezo_export.unfinished import check_output, unfinished
from edgezo_runtime.bundle.bundle import Bundle, describe_files
from edgezo_runtime.bundle.manifest import (
    MANIFEST_FILE,
    TRAINABLE_FILE,
    WEIGHTS_FILE,
    Manifest,
)
from edgezo_runtime.bundle.weights import read_header
from edgezo_runtime.errors import BundleError, EdgezoError, UsageError, printable

FROM = ("fp32", "fp16")
"""Forms of weights that can be made smaller without the checkpoint."""


def quantize_bundle(
    bundle: Bundle,
    output: Path,
    config: ExportConfig,
    progress: Progress,
    warn: Warn,
) -> Manifest:
    """Export the model of a bundle again, with weights in another form.

    The codes are those of an export of the checkpoint, if the bundle has its values: fp32 always,
    fp16 where float16 holds them.

    Args:
        bundle: with weights in fp32 or fp16.
        output: folder to make.
        config: form of the weights; scheme and task are those of the bundle.
        progress: called at every stage.
        warn: called with what the user should know.
    Returns:
        The manifest of the new bundle.
    Raises:
        UsageError: the bundle's weights are quantized or have that form, it makes embeddings,
            `output` exists, or a setting is out of range.
        EdgezoError: the model cannot be traced from its config, or the disk is full.
    Memory:
        As `export_bundle`.
    """
    check_settings(config)
    check_output(output, config.force)
    quant = _wanted(bundle, config.quant)
    bundle.verify_once()
    try:
        with unfinished(output) as place:
            manifest = _write(bundle, place.bundle, quant, config, progress, warn)
            place.finish(config.force)
    except OSError as error:
        raise EdgezoError(
            f"{error.filename or output}: {error.strerror or error}; no bundle was written"
        ) from error
    return manifest


def _wanted(bundle: Bundle, quant: str) -> Quant:
    """Return the form to make.

    Raises:
        UsageError: it cannot be made.
    """
    found = bundle.manifest.quant
    if found not in FROM:
        raise UsageError(
            f"{bundle.root}: its weights are quantized already ({found}), and quantizing them "
            f"again would add a second error; export the model again with `quant` {quant}"
        )
    if bundle.manifest.model.task == "embedding":
        raise UsageError(
            f"{bundle.root}: a bundle of embeddings does not say how it pools; export the model "
            f"again with `quant` {quant}"
        )
    if quant in ("auto", "fp32", found):
        raise UsageError(
            f"`quant` {quant}: the weights are {found}; choose a smaller form: w4, w8, int8"
        )
    return quant  # type: ignore[return-value]


def _write(
    bundle: Bundle,
    folder: Path,
    quant: Quant,
    config: ExportConfig,
    tell: Progress,
    warn: Warn,
) -> Manifest:
    old = bundle.manifest
    tell("trace", 0, 1)
    base, cls = _model(old)
    sizes = model_sizes(base)
    trace = _traced(bundle, base, cls, sizes["max_seq"])
    tell("trace", 1, 1)
    scheme = scheme_of(old.scheme).resolve(
        facts_of(trace, old.model.architecture, sizes, old.tokenizer)
    )

    def graphs_of(form: Quant) -> BundleGraphs:
        widths = sizes["hidden_size"], sizes["vocab_size"]
        return build_graphs(trace, scheme, form, *widths, None, config.group_size)

    found = graphs_of(old.quant).planned()
    weights = StoredWeights(bundle.path(WEIGHTS_FILE), found, _shapes(trace))
    own = graphs_of(quant)
    tell_larger(own.planned(), quant, config.group_size, warn)
    graphs = own.save(folder, tell)
    backward = own.save_backward(folder, graphs)
    gpu = own.save_gpu(folder, graphs)
    kept = [old.tokenizer.file, TRAINABLE_FILE]
    kept += [old.tokenizer.chat_template] if old.tokenizer.chat_template else []
    for name in kept:
        shutil.copyfile(bundle.path(name), folder / name)
    facts = log_facts(_stamp(old), dataclasses.replace(config, quant=quant))
    log = TensorLog(folder.parent, facts, warn)
    codes = _codes(own, weights, bundle, sizes, config, tell, log) if quant == "w4" else None
    write_weights(
        folder / WEIGHTS_FILE,
        own.planned(),
        weights,
        lambda done, total: tell("weights", done, total),
        codes,
        log,
    )
    paths = sorted(folder.rglob("*"))
    names = [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
    manifest = dataclasses.replace(
        old,
        created_by=created_by(),
        quant=quant,
        graphs=graphs,
        backward=backward,
        files=describe_files(folder, names),
        group_size=config.group_size if quant in ("w4", "w8") else None,
        gpu=gpu,
    )
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _model(manifest: Manifest) -> tuple[PretrainedConfig, type[PreTrainedModel]]:
    """Return config and class of the model.

    Raises:
        UsageError: transformers does not know them.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(manifest.base_config), encoding="utf-8")
        try:
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # configs check their entries in ways of their own
            raise _unknown(manifest, printable(error, 200)) from error
    cls: Any = getattr(transformers, manifest.model.class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, PreTrainedModel)):
        raise _unknown(manifest, "it has no model class of that name")
    # rows may have been added for tokens that the model lacked
    config.get_text_config().vocab_size = manifest.model.vocab_size
    return config, cls


def _unknown(manifest: Manifest, reason: str) -> UsageError:
    model = manifest.model
    return UsageError(
        f"{printable(model.architecture)} ({printable(model.class_name)}): this version of "
        f"transformers does not know it: {reason}; export the model again"
    )


def _stamp(manifest: Manifest) -> str:
    """Return what the tensors of the new bundle depend on: the old weights, and what reads them."""
    digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    return f"{manifest.files[WEIGHTS_FILE].sha256} {digest}"


def _traced(
    bundle: Bundle, config: PretrainedConfig, cls: type[PreTrainedModel], max_seq: int
) -> Trace:
    stored = read_header(bundle.path(WEIGHTS_FILE))

    def separate(tied: Mapping[str, str]) -> list[str]:
        return [name for name in tied if name in stored]

    causal = bundle.manifest.model.task == "causal-lm"
    return traced(config, cls, causal, max_seq, separate)


def _shapes(trace: Trace) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters of a trace, by their names in the checkpoint."""
    names = Checkpoint(trace.tied, trace.buffers, 0)
    return {
        names.name(value): tuple(dim for dim in value.shape if isinstance(dim, int))
        for value in trace.model.graph.initializers.values()
        if value.shape is not None and all(isinstance(dim, int) for dim in value.shape)
    }


def _codes(
    graphs: BundleGraphs,
    weights: StoredWeights,
    bundle: Bundle,
    sizes: Mapping[str, int],
    config: ExportConfig,
    tell: Progress,
    log: TensorLog,
) -> MakeCodes | None:
    """Prepare calibrated codes; None where each weight is rounded by itself."""
    from tokenizers import Tokenizer

    if not config.calibration_rows:
        return None
    file = bundle.path(bundle.manifest.tokenizer.file)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises no other class
        raise BundleError(f"{file}: {printable(error, 200)}; export the model again") from error
    rows = rows_to_calibrate_with(
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        bundle.manifest.tokenizer,
        config.calibration_rows,
        sizes["max_seq"],
    )
    return calibrated(graphs, weights, rows, config, tell, log)
