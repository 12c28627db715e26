"""The graphs of a bundle: build them from a trace, and write them to files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgezo_export.calibration.calibration_graphs import CalibrationGraphs
from edgezo_export.derivatives.backward_graphs import Backward
from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.block import lower_block
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.context import Context
from edgezo_export.graphs.gpu_graphs import GpuForms
from edgezo_export.graphs.label_scorer import lower_label_scorer
from edgezo_export.graphs.logits import lower_logits
from edgezo_export.graphs.prologue import lower_prologue
from edgezo_export.graphs.text_embedding import Pooling, lower_embedding_scorers
from edgezo_export.graphs.token_scorer import lower_token_scorer
from edgezo_export.operators.layers import Quant
from edgezo_export.operators.linear import FormOf
from edgezo_export.quantization.weights_plan import PlannedTensor
from edgezo_export.schemes.scheme import Edit, Scheme
from edgezo_export.trace.canonical import canonicalize
from edgezo_export.trace.partition import partition
from edgezo_export.trace.trace import Trace
from edgezo_runtime.bundle.manifest import TrainableInfo
from edgezo_runtime.bundle.manifest_types import BackwardInfo, GpuGraphs, GraphInfo, Graphs
from edgezo_runtime.errors import UsageError

Progress = Callable[[str, int, int], None]
"""Takes the stage, the units done and the units in all."""

_Build = Callable[[], GraphBuilder]

_GPU = ".gpu"
"""Marks the names of files with graphs for GPUs."""


@dataclass(slots=True)
class BundleGraphs:
    """The graphs of a bundle.

    Attributes:
        prologue: input ids -> hidden states and context.
        blocks: one per layer.
        score_labels: hidden states -> scores of label words.
        score_tokens: hidden states -> log-probabilities of tokens.
        logits: hidden states -> logits; None for encoders, which generate nothing.
        edits: the edits of the scheme, in the order of the blocks.
        backward: builds the backward graphs.
        gpu: builds the graphs for GPUs.
        calibration: builds the graphs that calibration rows go through.
    """

    prologue: GraphBuilder
    blocks: list[GraphBuilder]
    score_labels: GraphBuilder
    score_tokens: GraphBuilder
    logits: GraphBuilder | None
    edits: list[Edit]
    backward: Backward
    gpu: GpuForms
    calibration: CalibrationGraphs

    @property
    def trainables(self) -> tuple[TrainableInfo, ...]:
        """The tensors of the scheme, in the order of the blocks."""
        return tuple(info for edit in self.edits for info in edit.tensors)

    def drafts(self) -> list[GraphBuilder]:
        """Return all graphs in the order they run."""
        ends = [self.score_labels, self.score_tokens]
        return [self.prologue, *self.blocks, *ends, *([self.logits] if self.logits else [])]

    def planned(self) -> list[PlannedTensor]:
        """Return every weight once, in the order the graphs read them: block after block."""
        found: dict[str, PlannedTensor] = {}
        for draft in self.drafts():
            for name, tensor in draft.planned.items():
                found.setdefault(name, tensor)
        return list(found.values())

    def save(self, folder: Path, progress: Progress) -> Graphs:
        """Write every graph to `folder`/graphs; equal blocks share a file."""
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
        after = 1 + len(self.blocks)
        return Graphs(infos[0], tuple(infos[1:after]), *infos[after:])

    def save_gpu(self, folder: Path, graphs: Graphs) -> GpuGraphs | str:
        """Write the graphs for GPUs to `folder`/graphs; equal blocks share a file.

        Args:
            folder: of the bundle.
            graphs: those for the processor.
        Returns:
            The manifest's entries; if there are none, the reason. The rest of the bundle does not
            need them.
        """
        try:
            drafts = [self.gpu.block(index) for index in range(len(self.blocks))]
        except UnsupportedModelError as error:
            return str(error)
        files: dict[bytes, str] = {}
        blocks: list[GraphInfo] = []
        for draft in drafts:
            content = draft.serialize()
            if content not in files:
                files[content] = f"graphs/block_{len(files)}{_GPU}.onnx"
                (folder / files[content]).write_bytes(content)
            blocks.append(draft.info(files[content]))
        backward = self._save_backward(folder, self.backward.for_gpus(), blocks, graphs)
        on_states: list[GraphInfo] = []
        for draft in (self.gpu.rows(), self.gpu.sum()):
            file = f"graphs/{draft.name}.onnx"
            (folder / file).write_bytes(draft.serialize())
            on_states.append(draft.info(file))
        rows, total = on_states
        return GpuGraphs(tuple(blocks), rows, total, backward)

    def save_backward(self, folder: Path, graphs: Graphs) -> tuple[BackwardInfo, ...] | str:
        """Write the backward graph of every kind of block and of the scorers to `folder`/graphs.

        The unfused forward graphs of blocks and label scorer are written beside them.

        Returns:
            The manifest's entries; if an operator has no derivative, the reason why there are none.
            The rest of the bundle does not need them.
        """
        return self._save_backward(folder, self.backward, graphs.blocks, graphs)

    def _save_backward(
        self, folder: Path, back: Backward, blocks: Sequence[GraphInfo], graphs: Graphs
    ) -> tuple[BackwardInfo, ...] | str:
        """Write the backward graphs of blocks and scorers; for GPUs no unfused forward graphs."""
        made: dict[str, tuple[_Build, _Build | None]] = {}
        for index, graph in enumerate(blocks):
            unfused = None if back.gpu else partial(back.unfused_block, index)
            made.setdefault(graph.file, (partial(back.block, index), unfused))
        labels = None if back.gpu else back.unfused_label_scorer
        made[graphs.score_labels.file] = back.label_scorer, labels
        made[graphs.score_tokens.file] = back.token_scorer, None
        try:
            drafts = {
                of: (make(), None if unfused is None else unfused())
                for of, (make, unfused) in made.items()
            }
        except UnsupportedModelError as error:
            return str(error)
        infos: list[BackwardInfo] = []
        for of, (draft, plain) in drafts.items():
            name = of.removesuffix(".onnx").removesuffix(_GPU)
            file, unfused_file = f"{name}{_GPU if back.gpu else ''}.backward.onnx", None
            (folder / file).write_bytes(draft.serialize())
            if plain is not None:
                unfused_file = f"{name}.plain.onnx"
                (folder / unfused_file).write_bytes(plain.serialize())
            own = draft.info(file)
            infos.append(BackwardInfo(file, of, own.inputs, own.outputs, unfused_file))
        return tuple(infos)


def build_graphs(
    trace: Trace,
    scheme: Scheme,
    quant: Quant,
    hidden_size: int,
    vocab_size: int,
    pooling: Pooling | None = None,
    group_size: int = 32,
    form_of: FormOf | None = None,
) -> BundleGraphs:
    """Split a trace and lower every part.

    Args:
        trace: the model.
        scheme: what trains.
        quant: form of the weights.
        hidden_size: H.
        vocab_size: V.
        pooling: how states become the embedding of a text; None for a model with a head.
        group_size: inputs of a group of w4 and w8.
        form_of: tells how the checkpoint stores a parameter, which keep needs.

    Raises:
        UnsupportedModelError: the trace cannot be split into blocks, or a part cannot be lowered.
        UsageError: the scheme trains nothing in this model.
    """
    canonicalize(trace.model)
    cut = partition(trace.model, trace.layers)
    checkpoint = Checkpoint(trace.tied, trace.buffers, vocab_size, form_of)
    context = Context()
    blocks: list[GraphBuilder] = []
    edits: list[Edit] = []
    for index, (segment, module) in enumerate(zip(cut.layers, trace.layers, strict=True)):
        draft, made = lower_block(
            segment,
            index,
            module,
            checkpoint,
            context,
            scheme,
            quant,
            hidden_size,
            group_size=group_size,
        )
        blocks.append(draft)
        edits.extend(made)
    prologue = lower_prologue(
        cut.prologue, trace.model.graph.inputs, checkpoint, context, quant, hidden_size
    )
    if pooling is None:
        labels = lower_label_scorer(cut.epilogue, checkpoint, quant, hidden_size)
        tokens = lower_token_scorer(cut.epilogue, checkpoint, quant, hidden_size)
    else:
        own = cut.epilogue, checkpoint, hidden_size, pooling
        labels, tokens = lower_embedding_scorers(*own)
    logits = None
    if len(trace.model.graph.inputs) == 1:  # a decoder: no mask
        logits = lower_logits(cut.epilogue, checkpoint, quant, hidden_size)
    if not edits:
        kind = scheme.info().kind
        raise UsageError(f"`trainable` {kind}: there is nothing in the model that it could train")
    backward = Backward(
        layers=list(zip(cut.layers, trace.layers, strict=True)),
        epilogue=cut.epilogue,
        checkpoint=checkpoint,
        context=context,
        scheme=scheme,
        quant=quant,
        hidden_size=hidden_size,
        pooling=pooling,
        group_size=group_size,
    )
    layers = list(zip(cut.layers, trace.layers, strict=True))
    gpu = GpuForms(layers, checkpoint, context, scheme, quant, hidden_size, group_size)
    inputs = tuple(trace.model.graph.inputs)
    calibration = CalibrationGraphs(cut.prologue, inputs, layers, checkpoint, hidden_size)
    return BundleGraphs(prologue, blocks, labels, tokens, logits, edits, backward, gpu, calibration)
