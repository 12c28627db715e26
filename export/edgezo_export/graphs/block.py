"""The graph of a block: one layer of the model, with the trainables of the scheme."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.context import Context, dynamic_shape
from edgezo_export.graphs.residual_layer import residual_layers
from edgezo_export.graphs.segment import SegmentLowering
from edgezo_export.operators.attention import continues
from edgezo_export.operators.group_query import Past
from edgezo_export.operators.linear import LinearLowering, Quant, Taps
from edgezo_export.operators.unfused import FOR_GPUS, UNFUSED, UNFUSED_FOR_GPUS
from edgezo_export.schemes.block_edits import BlockEdits
from edgezo_export.schemes.scheme import Edit, Scheme
from edgezo_export.trace.partition import Segment
from edgezo_export.trace.values import constant
from edgezo_runtime.bundle.manifest_types import LAYER_INPUT, LAYER_SLOPE


def lower_block(
    segment: Segment,
    index: int,
    module: str,
    checkpoint: Checkpoint,
    context: Context,
    scheme: Scheme,
    quant: Quant,
    hidden_size: int,
    *,
    group_size: int = 32,
    continuing: bool = True,
    unfused: bool = False,
    gpu: bool = False,
    taps: Taps | None = None,
) -> tuple[GraphBuilder, list[Edit]]:
    """One layer: hidden, context..., code, decode, active, trainables..., weights... -> hidden_out.

    If its attention can continue from earlier tokens, the graph also takes past_key and past_value
    (R, n, P, D) and past_lengths (R,), and returns key and value (R, n, P + S, D). The graph also
    returns the inputs of the linear layers whose outputs it adds to the residual, and the slopes of
    the RMS norms between these layers and the sum, where there are any.

    Args:
        segment: its traced nodes.
        index: its number.
        module: its path.
        checkpoint: names and buffers.
        context: collects what the block needs from the prologue.
        scheme: trainables to add.
        quant: form of the frozen linear layers.
        hidden_size: width of the hidden states.
        group_size: inputs of a group of w4 and w8.
        continuing: take earlier keys and values, if that is possible.
        unfused: use standard operators, which have a derivative; without code and decode.
        gpu: use operators that providers of GPUs have; activations are not quantized.
        taps: collects what the frozen linear layers read.
    """
    expand = _EXPANSIONS[unfused, gpu]
    draft = GraphBuilder("block", f"{module}.", expand, gpu=gpu)
    hidden = draft.input("hidden", ir.DataType.FLOAT, ("rows", "tokens", hidden_size))
    inputs = _Inputs(draft, hidden, context)
    linears = LinearLowering(
        draft,
        quant,
        group_size=group_size,
        dequantize=unfused,
        taps=taps,
        form_of=checkpoint.form_of,
    )
    if not unfused:
        linears.declare_code()
    edits = BlockEdits(draft, scheme, index, module, segment.nodes)
    past = Past(draft, edits) if continuing and continues(segment.nodes) else None
    lowering = SegmentLowering(
        draft, checkpoint, linears, inputs.outside, edits, inputs.rotary_cache, quant, past
    )
    if segment.hidden_in is None:
        raise UnsupportedModelError(f"block {index} has no hidden states to start from")
    start = edits.apply(edits.entry(hidden_size), "output", hidden)
    lowering.bind(segment.hidden_in, start)
    lowering.run(segment.nodes)
    if lowering.shares_layers and not edits.made and taps is None:
        raise UnsupportedModelError(
            f"block {index} runs some of its layers more than once; shared layers cannot be tuned"
        )
    result = lowering.value(segment.hidden_out)
    draft.output(result, "hidden_out", ir.DataType.FLOAT, ("rows", "tokens", hidden_size))
    for layer in residual_layers(segment):
        name = draft.local(checkpoint.name(layer.weight).removesuffix(".weight"))
        shape = ("rows", "tokens", layer.in_features)
        draft.output(lowering.value(layer.x), f"{LAYER_INPUT}{name}", ir.DataType.FLOAT, shape)
        if layer.norm is not None:
            slope, shape = lowering.slope(layer.norm), ("rows", "tokens", hidden_size)
            draft.output(slope, f"{LAYER_SLOPE}{name}", ir.DataType.FLOAT, shape)
    if past is not None and inputs.by_position:
        if taps is not None:
            taps.clear()
        own = (module, checkpoint, context, scheme, quant, hidden_size)
        return lower_block(
            segment,
            index,
            *own,
            group_size=group_size,
            continuing=False,
            unfused=unfused,
            gpu=gpu,
            taps=taps,
        )
    if past is None:
        edits.no_past()
    else:
        past.declare_outputs()
    return draft, edits.made


_EXPANSIONS = {
    (False, False): None,
    (False, True): FOR_GPUS,
    (True, False): UNFUSED,
    (True, True): UNFUSED_FOR_GPUS,
}
"""(unfused, gpu) -> operators that are expanded."""


class _Inputs:
    """The inputs of a block that come from the prologue, declared when they are first read.

    Args:
        draft: graph of the block.
        hidden: its hidden states.
        context: collects what the block needs from the prologue.

    Attributes:
        by_position: has it read context that the prologue computes for the tokens of the pass?
    """

    def __init__(self, draft: GraphBuilder, hidden: ir.Value, context: Context) -> None:
        self.by_position = False
        self._draft = draft
        self._hidden = hidden
        self._context = context
        self._declared: dict[str, ir.Value] = {}

    def outside(self, value: ir.Value) -> ir.Value:
        """Return the value of a tensor that the prologue makes."""
        axis = batch_dimension(value)
        if axis is not None:  # the block's own rows, not the prologue's
            draft = self._draft
            return draft.op("Squeeze", draft.op("Shape", self._hidden, start=axis, end=axis + 1))
        node = value.producer()
        if node is not None and is_size(value):
            inputs = [self._size(each) for each in node.inputs if each is not None]
            return self._draft.op(node.op_type, *inputs)
        if value.dtype is None:
            raise UnsupportedModelError(f"context {value.name!r} of unknown dtype")
        self.by_position = True
        return self._input(self._context.tensor(value), value.dtype, dynamic_shape(value))

    def _size(self, value: ir.Value) -> ir.Value:
        """Return the value of a number that sizes are computed from."""
        number = constant(value)
        return self.outside(value) if number is None else self._draft.constant(number)

    def rotary_cache(self, value: ir.Value, half: bool) -> ir.Value:
        """Return the (S, D/2) form of a rotary table, or of one `half` of it."""
        width = int(value.shape[-1])  # type: ignore[index, arg-type]
        shape = ("tokens", width if half else width // 2)
        return self._input(self._context.rotary_cache(value, half), ir.DataType.FLOAT, shape)

    def _input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        if name not in self._declared:
            self._declared[name] = self._draft.input(name, dtype, shape)
        return self._declared[name]


_ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub"})


def is_size(value: ir.Value) -> bool:
    """Is `value` computed from the numbers of rows and tokens of the input ids alone?"""
    node = value.producer()
    if node is None or node.op_type not in _ARITHMETIC or value.shape is None or len(value.shape):
        return False
    return all(
        each is not None
        and (constant(each) is not None or batch_dimension(each) is not None or is_size(each))
        for each in node.inputs
    )


def batch_dimension(value: ir.Value) -> int | None:
    """Return 0 or 1 if `value` is the number of rows or tokens of the input ids, else None."""
    squeeze = value.producer()
    if squeeze is None or squeeze.op_type != "Squeeze" or squeeze.inputs[0] is None:
        return None
    shape = squeeze.inputs[0].producer()
    if shape is None or shape.op_type != "Shape" or shape.inputs[0] is None:
        return None
    if shape.inputs[0].producer() is not None:
        return None
    return int(shape.attributes["start"].value)
