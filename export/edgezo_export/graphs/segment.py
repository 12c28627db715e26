"""Lower the traced nodes of a segment to ONNX operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.linear_layers import LinearLayers
from edgezo_export.operators.activation import emit_silu
from edgezo_export.operators.attention import (
    AttentionLowering,
    RotaryCache,
    rotary_width,
    rotates_heads,
)
from edgezo_export.operators.convolution import emit_short_convolution
from edgezo_export.operators.embedding import embedding_rows
from edgezo_export.operators.experts import Routing, emit_expert_linear, emit_routing
from edgezo_export.operators.group_query import Past
from edgezo_export.operators.linear import LinearLowering, LinearSpec, Quant
from edgezo_export.operators.norm import emit_rms_norm, emit_rms_slope
from edgezo_export.operators.rotary import emit_rotary, emit_rotary_cache
from edgezo_export.quantization.weights_plan import PlannedTensor
from edgezo_export.schemes.block_edits import BlockEdits
from edgezo_export.sources.expert_matrices import expert_name
from edgezo_export.trace.symbols import DOMAIN
from edgezo_export.trace.values import constant, fixed_shape, present


class SegmentLowering:
    """Lowers traced nodes into one graph; whatever differs between segments is an argument.

    Args:
        draft: the graph.
        checkpoint: names and buffers.
        linears: appends frozen linear layers.
        outside: returns the value of a tensor that another segment makes.
        edits: the scheme's edits, None outside blocks.
        rotary_cache: returns the (S, D/2) form of a rotary table.
        quant: form of embeddings.
        past: keys and values of earlier tokens, None if there cannot be any.
    """

    def __init__(
        self,
        draft: GraphBuilder,
        checkpoint: Checkpoint,
        linears: LinearLowering,
        outside: Callable[[ir.Value], ir.Value],
        edits: BlockEdits | None = None,
        rotary_cache: RotaryCache | None = None,
        quant: Quant = "fp32",
        past: Past | None = None,
    ) -> None:
        self.draft = draft
        self._checkpoint = checkpoint
        self._frozen = linears
        self._linears = LinearLayers(draft, checkpoint, linears, edits, self.value)
        self._routings: dict[ir.Value, Routing] = {}
        self._outside = outside
        self._edits = edits
        self._quant = quant
        self._values: dict[ir.Value, ir.Value] = {}
        self._attention = AttentionLowering(
            draft, self.value, rotary_cache or self._own_cache, past
        )
        self._order: dict[ir.Node, int] = {}

    @property
    def shares_layers(self) -> bool:
        """Does a linear layer run more than once?"""
        return self._linears.shared

    def bind(self, traced: ir.Value, value: ir.Value) -> None:
        """Set the value of a traced value."""
        self._values[traced] = value

    def value(self, traced: ir.Value) -> ir.Value:
        """Return the value of a traced value."""
        found = self._values.get(traced)
        if found is None:
            found = self._make(traced)
            self._values[traced] = found
        return found

    def forget(self, nodes: Sequence[ir.Node]) -> None:
        """Drop the values of nodes, which can then be lowered again on other inputs."""
        for node in nodes:
            for output in node.outputs:
                self._values.pop(output, None)

    def run(self, nodes: Sequence[ir.Node]) -> None:
        """Lower nodes in topological order."""
        self._order = {node: index for index, node in enumerate(nodes)}
        for node in nodes:
            if all(output in self._values for output in node.outputs):
                continue
            if node.domain == DOMAIN:
                self._symbol(node)
            elif node.op_type == "Gather" and self._is_embedding(node.inputs[0]):
                self._embedding(node)
            elif node.op_type == "Conv":
                self.bind(node.outputs[0], self._convolution(node))
            else:
                self._copy(node)

    # --- single values ---

    def _make(self, traced: ir.Value) -> ir.Value:
        array = constant(traced)
        if array is not None:
            return self.draft.constant(array)
        if traced.producer() is not None or not traced.is_initializer():
            return self._outside(traced)
        name = self._checkpoint.name(traced)
        buffer = self._checkpoint.buffers.get(name)
        if buffer is not None:
            return self.draft.constant(buffer.detach().cpu().numpy())
        if traced.const_value is not None and name.rpartition(".")[2].startswith("lifted_tensor"):
            return self.draft.constant(traced.const_value.numpy())
        shape = fixed_shape(traced)
        return self.draft.weight(PlannedTensor(name, "F32", shape, (name,), "plain", False))

    def _own_cache(self, traced: ir.Value, half: bool) -> ir.Value:
        dim = None if traced.shape is None else traced.shape[-1]
        if not isinstance(dim, int):
            raise UnsupportedModelError("rotary table of unknown width")
        return emit_rotary_cache(self.draft, self.value(traced), dim, half)

    # --- nodes ---

    def _symbol(self, node: ir.Node) -> None:
        """Lower a symbolic operator."""
        output = node.outputs[0]
        if node.op_type == "Linear":
            self._values.update(self._linears.lower(node, self._order))
        elif node.op_type == "ExpertLinear":
            self.bind(output, self._expert_linear(node))
        elif node.op_type == "Attention":
            self.bind(output, self._attention.emit(node))
        elif node.op_type == "Rotary":
            # Attention takes the plain heads and rotates them itself when it can.
            if not all(rotates_heads(user) for user, _ in output.uses()):
                self.bind(output, self._rotary(node))
        elif node.op_type == "Mask":
            pass  # lowered by the attention that reads it
        elif node.op_type == "Silu":
            self.bind(output, emit_silu(self.draft, self.value(present(node.inputs[0]))))
        elif node.op_type == "RmsNorm":
            self.bind(output, self._rms_norm(node))
        else:
            raise UnsupportedModelError(f"operator {node.domain}::{node.op_type}")

    def _copy(self, node: ir.Node) -> None:
        """Append a standard operator as it is."""
        inputs = [None if value is None else self.value(value) for value in node.inputs]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
            raise UnsupportedModelError(f"node {node.op_type} with a subgraph")
        outputs = self.draft.ops(
            node.op_type, len(node.outputs), *inputs, domain=node.domain, **attributes
        )
        self._values.update(zip(node.outputs, outputs, strict=True))
        if self._edits is not None and node.op_type == "LayerNormalization":
            norm = partial(self.draft.op, node.op_type, inputs[0], **attributes)
            self.bind(node.outputs[0], self._edited_norm(node, outputs[0], norm))

    def _expert_linear(self, node: ir.Node) -> ir.Value:
        traced, index, weight = (present(value) for value in node.inputs)
        shape, choices = fixed_shape(weight), index.shape
        slots = None if choices is None else choices[-1]
        if not isinstance(slots, int) or traced.shape is None:
            raise UnsupportedModelError("experts whose number per token is not fixed")
        routing = self._routings.get(index)
        if routing is None:
            own = self.value(index), self._frozen.groups(), shape[0], slots
            routing = self._routings[index] = emit_routing(self.draft, *own)
        in_out = bool(node.attributes["in_out"].value)
        width, size = shape[1:] if in_out else reversed(shape[1:])
        name = self._checkpoint.name(weight)
        specs = [
            LinearSpec((expert_name(name, number),), (size,), width, in_out, ())
            for number in range(shape[0])
        ]
        x, by_slot = self.value(traced), len(traced.shape) == 3
        return emit_expert_linear(self.draft, self._frozen, specs, x, routing, by_slot=by_slot)

    def _convolution(self, node: ir.Node) -> ir.Value:
        x, weight = (self.value(present(value)) for value in node.inputs[:2])
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        size = fixed_shape(present(node.inputs[1]))
        return emit_short_convolution(
            self.draft, x, weight, None if bias is None else self.value(bias), size, attributes
        )

    def slope(self, norm: ir.Node) -> ir.Value:
        """Append the diagonal part of an RMS norm's derivative at its input, which is lowered."""
        return emit_rms_slope(self.draft, *self._norm_inputs(norm))

    def _rms_norm(self, node: ir.Node) -> ir.Value:
        x, gain, epsilon = self._norm_inputs(node)
        norm = partial(emit_rms_norm, self.draft, x, epsilon=epsilon)
        return self._edited_norm(node, norm(gain), norm)

    def _norm_inputs(self, node: ir.Node) -> tuple[ir.Value, ir.Value, float]:
        """The input, the gain and the epsilon of an RMS norm."""
        x, gain = (self.value(present(value)) for value in node.inputs[:2])
        if node.attributes["plus_one"].value:
            gain = self.draft.op("Add", gain, self.draft.scalar(1.0))
        return x, gain, float(node.attributes["epsilon"].value)

    def _edited_norm(
        self, node: ir.Node, y: ir.Value, norm: Callable[[ir.Value], ir.Value]
    ) -> ir.Value:
        """Apply the scheme's edits to a norm's output.

        Args:
            node: the traced norm; its second input is its weight.
            y: its output.
            norm: appends it with another weight, and without a bias.
        """
        weight = present(node.inputs[1])
        shape = node.outputs[0].shape
        if self._edits is None or not weight.is_initializer() or shape is None:
            return y
        module = self._checkpoint.name(weight).removesuffix(".weight")
        bias = len(node.inputs) > 2 and node.inputs[2] is not None
        edits = self._edits.norm(module, _width(node), bias)
        if not edits:
            return y
        heads = shape[2] if len(shape) == 4 else 1
        if isinstance(shape[1], int) or not isinstance(heads, int):
            raise UnsupportedModelError(f"norm {module!r}: its output {shape} is not by token")
        ones = self.draft.constant(np.ones(_width(node), np.float32))
        return self._edits.apply(edits, "output", y, x=norm(ones), heads=heads)

    def _rotary(self, node: ir.Node) -> ir.Value:
        traced, cos, sin = (present(value) for value in node.inputs)
        head_dim = None if traced.shape is None else traced.shape[-1]
        if not isinstance(head_dim, int):
            raise UnsupportedModelError(f"rotary embedding of {traced.name!r}: width is not fixed")
        x, cos, sin = (self.value(value) for value in (traced, cos, sin))
        if node.attributes["half"].value:
            cos, sin = (self.draft.op("Concat", half, half, axis=-1) for half in (cos, sin))
        return emit_rotary(self.draft, x, cos, sin, head_dim, rotary_width(node))

    def _is_embedding(self, table: ir.Value | None) -> bool:
        if table is None or not table.is_initializer() or table.shape is None:
            return False
        return len(table.shape) == 2 and table.shape[0] == self._checkpoint.vocab_size

    def _embedding(self, node: ir.Node) -> None:
        table, ids = present(node.inputs[0]), present(node.inputs[1])
        rows, width = fixed_shape(table)
        name = self._checkpoint.name(table)
        form = self._checkpoint.table_form(name, self._quant)
        found = embedding_rows(self.draft, name, (rows, width), form, self.value(ids))
        self.bind(node.outputs[0], found)


def _width(norm: ir.Node) -> int:
    """Return the size of the axis that a norm scales."""
    dim = None if norm.outputs[0].shape is None else norm.outputs[0].shape[-1]
    if not isinstance(dim, int):
        raise UnsupportedModelError(f"norm {norm.name!r} of unknown width")
    return dim
