"""The graphs that calibration rows go through: float32 blocks that tell what their layers read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.block import lower_block
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.context import Context
from edgezo_export.graphs.prologue import lower_prologue
from edgezo_export.operators.linear import Taps
from edgezo_export.schemes.scheme import Edit, ModelFacts, Place
from edgezo_export.trace.partition import Segment
from edgezo_runtime.bundle.manifest import SchemeInfo, SchemeKind

HIDDEN = "hidden_out"
"""The output of a block."""


@dataclass(frozen=True, slots=True)
class NoScheme:
    """Trains nothing."""

    kind: ClassVar[SchemeKind] = "lora"
    chosen: ClassVar[frozenset[str]] = frozenset()

    def resolve(self, model: ModelFacts) -> NoScheme:
        """Return itself."""
        return self

    def edits(self, place: Place) -> Sequence[Edit]:
        """Return none."""
        return ()

    def info(self) -> SchemeInfo:
        """Return what would be the manifest's record, of no use."""
        return SchemeInfo(self.kind)


@dataclass(frozen=True, slots=True)
class TappedBlock:
    """A block, and where it tells what its layers read.

    Attributes:
        draft: its graph; the outputs are `HIDDEN` and those of `taps`.
        taps: output -> checkpoint names of the weights that are multiplied with it.
        weights: checkpoint names of the weights of a product -> name of their matrix.
    """

    draft: GraphBuilder
    taps: dict[str, tuple[str, ...]]
    weights: dict[tuple[str, ...], str]

    @property
    def inputs(self) -> dict[tuple[str, ...], str]:
        """Checkpoint names of the weights of a product -> the input that takes their matrix."""
        by_tensor = {binding.tensor: binding.input for binding in self.draft.weights}
        return {sources: by_tensor[tensor] for sources, tensor in self.weights.items()}


@dataclass(frozen=True, slots=True)
class CalibrationGraphs:
    """Builds the graphs.

    Attributes:
        before: traced nodes of the prologue.
        inputs: traced inputs of the model.
        layers: traced nodes and path of every layer.
        checkpoint: names and buffers.
        hidden_size: H.
    """

    before: Segment
    inputs: Sequence[ir.Value]
    layers: Sequence[tuple[Segment, str]]
    checkpoint: Checkpoint
    hidden_size: int
    _context: Context = field(default_factory=Context)

    def blocks(self) -> list[TappedBlock]:
        """Build all blocks; the prologue comes after them."""
        return [self._block(index) for index in range(len(self.layers))]

    def _block(self, index: int) -> TappedBlock:
        segment, module = self.layers[index]
        found: Taps = []
        draft, _ = lower_block(
            segment,
            index,
            module,
            self.checkpoint,
            self._context,
            NoScheme(),
            "fp32",
            self.hidden_size,
            continuing=False,
            taps=found,
        )
        taps: dict[str, tuple[str, ...]] = {}
        weights: dict[tuple[str, ...], str] = {}
        for number, (spec, x) in enumerate(found):
            name = f"read_{number}"
            rows = draft.op("Reshape", x, draft.ints(-1, spec.in_features))
            draft.output(rows, name, ir.DataType.FLOAT, ("read", spec.in_features))
            taps[name] = spec.sources
            weights[spec.sources] = f"{spec.name}.weight"
        return TappedBlock(draft, taps, weights)

    def prologue(self) -> GraphBuilder:
        """Build the prologue, with an embedding of 8 bits."""
        return lower_prologue(
            self.before, self.inputs, self.checkpoint, self._context, "int8", self.hidden_size
        )
