"""The graph of the prologue: embeddings, and the context of the blocks."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.context import HALF_CACHE, ROTARY_CACHE, Context, dynamic_shape
from edgezo_export.graphs.segment import SegmentLowering
from edgezo_export.operators.linear import LinearLowering, Quant
from edgezo_export.operators.rotary import emit_rotary_cache
from edgezo_export.trace.partition import Segment


def lower_prologue(
    segment: Segment,
    inputs: Sequence[ir.Value],
    checkpoint: Checkpoint,
    context: Context,
    quant: Quant,
    hidden_size: int,
) -> GraphBuilder:
    """input_ids (and attention_mask for encoders) -> hidden and the context of the blocks."""
    draft = GraphBuilder("prologue")

    def outside(value: ir.Value) -> ir.Value:
        raise UnsupportedModelError(f"the prologue reads {value.name!r}, which nothing makes")

    lowering = SegmentLowering(
        draft, checkpoint, LinearLowering(draft, "fp32"), outside, quant=quant
    )
    for value in inputs:
        name = str(value.name)
        lowering.bind(value, draft.input(name, ir.DataType.INT64, ("rows", "tokens")))
    lowering.run(_in_order_of_use(segment, context))
    hidden = lowering.value(segment.hidden_out)
    draft.output(hidden, "hidden", ir.DataType.FLOAT, ("rows", "tokens", hidden_size))
    for name, value in context.needed.items():
        made = lowering.value(value)
        shape: Sequence[int | str] = dynamic_shape(value)
        if name.endswith(ROTARY_CACHE):
            width = int(value.shape[-1])  # type: ignore[index, arg-type]
            half = name.endswith(HALF_CACHE)
            made = emit_rotary_cache(draft, made, width, half)
            shape = ("tokens", width if half else width // 2)
        draft.output(made, name, value.dtype or ir.DataType.FLOAT, shape)
    return draft


def _in_order_of_use(segment: Segment, context: Context) -> list[ir.Node]:
    """Order the nodes by the results that need them.

    Each comes after those that it reads. A trace has them in the order in which transformers made
    them, which is that of a set where a model has several rotary tables.
    """
    own = set(segment.nodes)
    ordered: dict[ir.Node, None] = {}

    def add(value: ir.Value | None) -> None:
        waiting = [] if value is None else [(value.producer(), False)]
        while waiting:
            node, ready = waiting.pop()
            if node is None or node not in own or node in ordered:
                continue
            if ready:
                ordered[node] = None
                continue
            waiting.append((node, True))
            inputs = reversed([value for value in node.inputs if value is not None])
            waiting.extend((value.producer(), False) for value in inputs)

    for result in (segment.hidden_out, *context.needed.values()):
        add(result)
    return list(ordered)
