"""Export a model to a bundle: trace, cut, rewrite, and stream the weights."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from optimum.exporters.tasks import TasksManager
from optimum.utils import NormalizedConfigManager
from transformers import PretrainedConfig, PreTrainedModel

from edgezo_export.derivatives.backward_graphs import Backward
from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.linear import Quant
from edgezo_export.graphs.logits import lower_logits
from edgezo_export.graphs.lower import Checkpoint, Context, lower_block, lower_prologue
from edgezo_export.graphs.scorers import lower_label_scorer, lower_token_scorer
from edgezo_export.quantization.weights_file import PlannedTensor, write_weights
from edgezo_export.schemes.lora import Lora
from edgezo_export.schemes.prefix_states import KeysValues
from edgezo_export.schemes.scheme import Edit, ModelFacts, Origin, Scheme
from edgezo_export.schemes.trainable_file import write_initial
from edgezo_export.sources.model_source import Source, open_source
from edgezo_export.trace.canonical import canonicalize
from edgezo_export.trace.partition import partition
from edgezo_export.trace.trace import Trace, trace_model
from edgezo_runtime.bundle.bundle import describe_files
from edgezo_runtime.bundle.manifest import (
    FORMAT,
    MANIFEST_FILE,
    TRAINABLE_FILE,
    WEIGHTS_FILE,
    Manifest,
    TrainableInfo,
)
from edgezo_runtime.bundle.manifest_types import (
    PAST,
    BackwardInfo,
    GraphInfo,
    Graphs,
    ModelInfo,
    TokenizerInfo,
)
from edgezo_runtime.errors import EdgezoError, UsageError

Task = Literal["auto", "causal-lm", "masked-lm"]

_OPTIMUM_TASK = {"causal-lm": "text-generation", "masked-lm": "fill-mask"}
_ENCODERS = "MaskedLM"

KNOWN = (
    "bert",
    "cohere",
    "distilbert",
    "electra",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "granite",
    "llama",
    "mistral",
    "modernbert",
    "olmo2",
    "opt",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "roberta",
    "smollm3",
    "starcoder2",
    "xlm-roberta",
)
"""Architectures whose every graph is tested against torch; others that can be cut work too."""

Progress = Callable[[str, int, int], None]
"""Told the stage, and how much of it is done: units done and units in all."""


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What `edgezo export` makes of a model.

    Attributes:
        quant: int8 (coded, row-independent) or fp32 (reference).
        scheme: the trainable tensors.
        task: auto takes masked-lm for classes named *MaskedLM, else causal-lm.
        force: replace an existing bundle.
    """

    quant: Quant = "int8"
    scheme: Scheme = field(default_factory=Lora)
    task: Task = "auto"
    force: bool = False


@dataclass(slots=True)
class Parts:
    """The graphs of a bundle; `logits` where its blocks can go on from earlier tokens."""

    prologue: GraphBuilder
    blocks: list[GraphBuilder]
    score_labels: GraphBuilder
    score_tokens: GraphBuilder
    logits: GraphBuilder | None
    edits: list[Edit]
    backward: Backward

    @property
    def trainables(self) -> tuple[TrainableInfo, ...]:
        """What the scheme brought, in the order of the blocks."""
        return tuple(info for edit in self.edits for info in edit.tensors)

    def drafts(self) -> list[GraphBuilder]:
        """All graphs in the order they run."""
        ends = [self.score_labels, self.score_tokens]
        return [self.prologue, *self.blocks, *ends, *([self.logits] if self.logits else [])]

    def planned(self) -> list[PlannedTensor]:
        """Every weight once, in the order the graphs read them; a block's lie together."""
        found: dict[str, PlannedTensor] = {}
        for draft in self.drafts():
            for name, tensor in draft.planned.items():
                found.setdefault(name, tensor)
        return list(found.values())

    def save(self, folder: Path, progress: Progress) -> Graphs:
        """Write every graph to `folder`/graphs; blocks that are the same graph share a file."""
        (folder / "graphs").mkdir()
        files: dict[bytes, str] = {}
        total = len(self.drafts())
        infos: list[GraphInfo] = []
        for index, draft in enumerate(self.drafts()):
            progress("graphs", index, total)
            content = draft.serialize()
            if content not in files:
                kind = sum(name.startswith("graphs/block_") for name in files.values())
                name = f"block_{kind}" if draft.name == "block" else draft.name
                files[content] = f"graphs/{name}.onnx"
                (folder / files[content]).write_bytes(content)
            infos.append(draft.info(files[content]))
        behind = 1 + len(self.blocks)
        return Graphs(infos[0], tuple(infos[1:behind]), *infos[behind:])

    def save_backward(self, folder: Path, graphs: Graphs) -> tuple[BackwardInfo, ...] | str:
        """Write the backward graph of every kind of block and of the scorers to `folder`/graphs.

        Returns:
            What the manifest says about them; why there are none where an operator has no
            derivative: the rest of the bundle does not need them.
        """
        back = self.backward
        made: dict[str, tuple[Callable[[], GraphBuilder], Callable[[], GraphBuilder] | None]] = {}
        for index, graph in enumerate(graphs.blocks):
            made.setdefault(
                graph.file, (partial(back.block, index), partial(back.plain_block, index))
            )
        made[graphs.score_labels.file] = back.label_scorer, back.plain_label_scorer
        made[graphs.score_tokens.file] = back.token_scorer, None
        try:
            drafts = {
                of: (make(), None if plain is None else plain())
                for of, (make, plain) in made.items()
            }
        except UnsupportedModelError as error:
            return str(error)
        infos: list[BackwardInfo] = []
        for of, (draft, plain) in drafts.items():
            name = of.removesuffix(".onnx")
            file, plain_file = f"{name}.backward.onnx", None
            (folder / file).write_bytes(draft.serialize())
            if plain is not None:
                plain_file = f"{name}.plain.onnx"
                (folder / plain_file).write_bytes(plain.serialize())
            own = draft.info(file)
            infos.append(BackwardInfo(file, of, own.inputs, own.outputs, plain_file))
        return tuple(infos)


def export_bundle(
    model: str | Source,
    output: Path,
    config: ExportConfig | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Export a Hugging Face id, a local folder or a .gguf file to a bundle.

    The bundle appears under its name only when it is complete.

    Args:
        model: what to export, by name or opened.
        output: folder to make.
        config: see `ExportConfig`.
        progress: told how far the export is.
    Returns:
        The manifest of the new bundle.
    Raises:
        UsageError: `output` exists and force is off, or no module matches the LoRA targets.
        UnsupportedModelError: the architecture cannot be cut into blocks.
        EdgezoError: the model cannot be found or read, or the bundle cannot be written.
    Memory:
        The trace (about 440 MB with torch) plus a fixed buffer; independent of the model's size
        for safetensors input.
    """
    config = config or ExportConfig()
    check_output(output, config.force)
    source = model if isinstance(model, Source) else open_source(model)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        try:
            manifest = _write(source, folder, config, progress)
            folder.chmod(0o755)
            _put_in_place(folder, output)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise EdgezoError(
            f"{error.filename or output}: {error.strerror or error}; no bundle was written"
        ) from error
    return manifest


def _put_in_place(folder: Path, output: Path) -> None:
    """Rename a finished bundle; what was there goes only when the new one is in its place."""
    old = folder.with_name(f"{folder.name}.old")
    if output.exists():
        output.rename(old)
    folder.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def check_output(output: Path, force: bool) -> None:
    """Refuse to write over something that is there, and to remove what is not a bundle."""
    if not output.exists():
        return
    if not force:
        raise UsageError(f"{output}: exists; choose another -o or pass --force to replace it")
    empty = output.is_dir() and not output.is_symlink() and not any(output.iterdir())
    if not empty and not _is_bundle(output):
        raise UsageError(f"{output}: exists and is not a bundle; --force replaces only bundles")


def _is_bundle(folder: Path) -> bool:
    """Of any version, even a damaged one; other programs write a manifest.json too."""
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT and not folder.is_symlink()


def model_class(config: PretrainedConfig, task: Task) -> tuple[type[PreTrainedModel], str]:
    """The class with a language-model head and the resolved task."""
    architectures = config.architectures or []
    if task == "auto":
        task = "masked-lm" if any(_ENCODERS in name for name in architectures) else "causal-lm"
    mapping = _auto_class(_OPTIMUM_TASK[task])._model_mapping
    if type(config) not in mapping:
        raise UnsupportedModelError(
            f"architecture {config.model_type!r} has no {task} class{_other_task(config, task)}; "
            f"known to work: {', '.join(KNOWN)}"
        )
    found = mapping[type(config)]
    return (found[0] if isinstance(found, tuple) else found), task


def _reason(error: BaseException) -> str:
    """The first line of the first error in a chain, without terminal colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _other_task(config: PretrainedConfig, task: str) -> str:
    for name, optimum_name in _OPTIMUM_TASK.items():
        if name != task and type(config) in _auto_class(optimum_name)._model_mapping:
            return f", but it has one for --task {name}"
    return ""


def _auto_class(optimum_task: str) -> Any:
    return TasksManager.get_model_class_for_task(optimum_task)


def _write(
    source: Source, folder: Path, config: ExportConfig, progress: Progress | None
) -> Manifest:
    tell: Progress = progress or (lambda stage, done, total: None)
    tell("trace", 0, 1)
    cls, task = model_class(source.config, config.task)
    facts = _dimensions(source.config)
    try:
        trace = trace_model(
            source.config, cls, causal=task == "causal-lm", max_seq=facts["max_seq"]
        )
    except UnsupportedModelError:
        raise
    except Exception as error:  # whatever a model's own code raises while it is traced
        raise UnsupportedModelError(
            f"architecture {source.config.model_type!r} ({cls.__name__}) cannot be traced: "
            f"{_reason(error)}"
        ) from error
    tell("trace", 1, 1)
    tokenizer = source.save_tokenizer(folder)
    config = replace(config, scheme=config.scheme.resolve(_facts(trace, source, facts, tokenizer)))
    scheme = config.scheme.info()
    parts = build_graphs(trace, config, facts["hidden_size"], facts["vocab_size"])
    graphs = parts.save(folder, tell)
    backward = parts.save_backward(folder, graphs)
    write_weights(
        folder / WEIGHTS_FILE,
        parts.planned(),
        source,
        lambda done, total: tell("weights", done, total),
    )
    origin = Origin(source, KeysValues(folder, graphs).of)
    write_initial(folder / TRAINABLE_FILE, parts.edits, origin)
    model = ModelInfo(
        id=source.model_id,
        architecture=source.config.model_type,
        class_name=cls.__name__,
        task="masked-lm" if task == "masked-lm" else "causal-lm",
        num_blocks=len(trace.layers),
        tied_embeddings=bool(trace.tied),
        **facts | {"max_seq": facts["max_seq"] - len(scheme.tokens)},
    )
    names = [
        path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    manifest = Manifest(
        created_by=_created_by(),
        model=model,
        quant=config.quant,
        graphs=graphs,
        trainables=parts.trainables,
        scheme=scheme,
        context=tuple(t.name for t in graphs.prologue.outputs if t.name != "hidden"),
        tokenizer=tokenizer,
        base_config=source.config_dict,
        files=describe_files(folder, names),
        backward=backward,
    )
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def build_graphs(trace: Trace, config: ExportConfig, hidden_size: int, vocab_size: int) -> Parts:
    """Cut a trace and rewrite every part."""
    canonicalize(trace.model)
    cut = partition(trace.model, trace.layers)
    checkpoint = Checkpoint(trace.tied, trace.buffers, vocab_size)
    context = Context()
    blocks: list[GraphBuilder] = []
    edits: list[Edit] = []
    for index, (segment, module) in enumerate(zip(cut.layers, trace.layers, strict=True)):
        draft, own = lower_block(
            segment, index, module, checkpoint, context, config.scheme, config.quant, hidden_size
        )
        blocks.append(draft)
        edits.extend(own)
    prologue = lower_prologue(
        cut.prologue, trace.model.graph.inputs, checkpoint, context, config.quant, hidden_size
    )
    labels = lower_label_scorer(cut.epilogue, checkpoint, config.quant, hidden_size)
    tokens = lower_token_scorer(cut.epilogue, checkpoint, config.quant, hidden_size)
    logits = None
    if all(PAST[0] in draft.inputs for draft in blocks):
        logits = lower_logits(cut.epilogue, checkpoint, config.quant, hidden_size)
    if not edits:
        kind = config.scheme.info().kind
        raise UsageError(f"--trainable {kind}: there is nothing in the model that it could train")
    backward = Backward(
        layers=list(zip(cut.layers, trace.layers, strict=True)),
        epilogue=cut.epilogue,
        checkpoint=checkpoint,
        context=context,
        scheme=config.scheme,
        quant=config.quant,
        hidden_size=hidden_size,
    )
    return Parts(prologue, blocks, labels, tokens, logits, edits, backward)


def _dimensions(config: PretrainedConfig) -> dict[str, Any]:
    """Sizes under the names of `ModelInfo`, whatever the architecture calls them."""
    text = config.get_text_config()
    manager = NormalizedConfigManager
    kind = text.model_type.replace("_", "-")
    known = manager.get_normalized_config_class(kind)(text) if kind in manager._conf else text
    for name in ("hidden_size", "vocab_size"):
        if not isinstance(getattr(known, name, None), int):
            raise UnsupportedModelError(f"architecture {text.model_type!r}: config has no {name}")
    limit = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    max_seq = int(limit or 2048)
    if text.model_type in ("roberta", "xlm-roberta", "camembert"):
        max_seq -= int(text.pad_token_id or 0) + 1  # positions start behind the padding index
    return {
        "hidden_size": int(known.hidden_size),
        "vocab_size": int(known.vocab_size),
        "max_seq": max_seq,
    }


def _facts(
    trace: Trace, source: Source, sizes: dict[str, Any], tokenizer: TokenizerInfo
) -> ModelFacts:
    known = (tokenizer.pad_id, tokenizer.bos_id, tokenizer.unk_id, tokenizer.mask_id)
    special = {token for token in (*known, *tokenizer.eos_ids) if token is not None}
    return ModelFacts(
        architecture=source.config.model_type,
        layers=tuple(_names(trace)),
        num_blocks=len(trace.layers),
        hidden_size=sizes["hidden_size"],
        vocab_size=sizes["vocab_size"],
        max_seq=sizes["max_seq"],
        special_ids=frozenset(special),
        embedding=trace.embedding,
    )


def _names(trace: Trace) -> list[str]:
    """Last components of the linear layers inside the blocks."""
    found = {
        str(node.inputs[1].name).removesuffix(".weight").rsplit(".", 1)[-1]
        for node in trace.model.graph
        if node.op_type == "Linear" and node.inputs[1] is not None
        if any(f".{layer}." in f".{node.inputs[1].name}" for layer in trace.layers)
    }
    return sorted(found)


def _created_by() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"edgezo {version('edgezo')}"
    except PackageNotFoundError:
        return "edgezo (source tree)"


def summary(manifest: Manifest) -> dict[str, object]:
    """What `edgezo export --json` prints."""
    return {
        "model": dataclasses.asdict(manifest.model),
        "quant": manifest.quant,
        "trainables": sum(1 for info in manifest.trainables if info.trains),
        "bytes": sum(info.bytes for info in manifest.files.values()),
    }
