"""The graphs for GPUs: the blocks in a form of their own, and what else keeps states on a device.

Prologue, scorers and logits serve every device as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.block import lower_block
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.context import Context
from edgezo_export.operators.layers import Quant
from edgezo_export.schemes.scheme import Scheme
from edgezo_export.trace.partition import Segment


@dataclass(frozen=True, slots=True)
class GpuForms:
    """Builds the graphs for GPUs; those for the processor must exist already.

    Attributes:
        layers: traced nodes and path of every layer.
        checkpoint: names and buffers.
        context: tensors of the prologue.
        scheme: the trainables.
        quant: form of the frozen weights.
        hidden_size: H.
        group_size: inputs of a group of w4 and w8.
    """

    layers: Sequence[tuple[Segment, str]]
    checkpoint: Checkpoint
    context: Context
    scheme: Scheme
    quant: Quant
    hidden_size: int
    group_size: int

    def block(self, index: int) -> GraphBuilder:
        """The graph of a block, with the inputs and outputs of that for the processor.

        Raises:
            UnsupportedModelError: providers of GPUs lack what it would need.
        """
        segment, module = self.layers[index]
        context = Context(dict(self.context.needed))
        own = (self.checkpoint, context, self.scheme, self.quant, self.hidden_size)
        draft, _ = lower_block(segment, index, module, *own, group_size=self.group_size, gpu=True)
        if context.needed.keys() != self.context.needed.keys():
            raise UnsupportedModelError(f"block {index} for GPUs takes other tables")
        return draft

    def rows(self) -> GraphBuilder:
        """states (R, S, H), index (M,) -> picked (M, S, H)."""
        draft = GraphBuilder("rows", gpu=True)
        states = draft.input("states", ir.DataType.FLOAT, ("rows", "tokens", self.hidden_size))
        index = draft.input("index", ir.DataType.INT64, ("picked",))
        picked = draft.op("Gather", states, index, axis=0)
        shape = ("picked", "tokens", self.hidden_size)
        draft.output(picked, "picked", ir.DataType.FLOAT, shape)
        return draft

    def sum(self) -> GraphBuilder:
        """left (R, S, H), right (R, S, H) -> sum (R, S, H)."""
        draft = GraphBuilder("sum", gpu=True)
        shape = ("rows", "tokens", self.hidden_size)
        parts = (draft.input(name, ir.DataType.FLOAT, shape) for name in ("left", "right"))
        draft.output(draft.op("Add", *parts), "sum", ir.DataType.FLOAT, shape)
        return draft
