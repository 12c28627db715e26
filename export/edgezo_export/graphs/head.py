"""The language-model head at chosen positions; shared by the scorers and the logits.

The positions are gathered before the head, so nothing of size S x V ever exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.segment import SegmentLowering
from edgezo_export.operators.embedding import TableForm, embedding_rows, embedding_tensors
from edgezo_export.operators.kept_weights import kept_part, rows_times
from edgezo_export.operators.linear import LinearLowering, Quant
from edgezo_export.quantization.quantize import ZERO_POINT
from edgezo_export.quantization.weights_plan import PlannedTensor
from edgezo_export.sources.stored_codes import CodeForm
from edgezo_export.trace.partition import Segment
from edgezo_export.trace.symbols import DOMAIN

CHUNK = 4096
"""Vocabulary entries scored at a time; with H = 576 a float32 chunk takes 9.4 MB."""

Tail = tuple[ir.Node, tuple[ir.Node, ...]]
"""The node of the head, and the nodes after it."""


@dataclass(frozen=True, slots=True)
class Head:
    """The parameters of the head.

    Attributes:
        name: of its matrix.
        shape: of its matrix, (V, H); a classification head has a row per class.
        bias: name of its bias, if it has one.
        checkpoint: tells the form of a matrix that is kept.
        of_tokens: has it a row per token? Else its rows are classes, which stay float32.
    """

    name: str
    shape: tuple[int, int]
    bias: str | None
    checkpoint: Checkpoint
    of_tokens: bool = True

    def form(self, quant: Quant) -> TableForm:
        """Return the form of its matrix, where that of the weights is `quant`."""
        return self.checkpoint.table_form(self.name, quant) if self.of_tokens else "fp32"


def gathered(
    draft: GraphBuilder, segment: Segment, checkpoint: Checkpoint, hidden_size: int
) -> tuple[SegmentLowering, ir.Value, Head, Tail]:
    """Append the states at the scored positions (T, H), after the final norm of the model.

    Returns:
        The lowering, the states, the parameters of the head, and its nodes.
    """
    hidden = draft.input("hidden", ir.DataType.FLOAT, ("rows", "tokens", hidden_size))
    positions = draft.input("positions", ir.DataType.INT64, ("scored", 2))
    before, head, after = split_at_head(segment.nodes)

    def outside(value: ir.Value) -> ir.Value:
        raise UnsupportedModelError(f"the head of the model reads {value.name!r}")

    lowering = SegmentLowering(draft, checkpoint, LinearLowering(draft, "fp32"), outside)
    if segment.hidden_in is None or head.inputs[0] is None or head.inputs[1] is None:
        raise UnsupportedModelError("the head of the model has no input")
    # A row of T tokens; a classification head, which takes the first token, gets T rows of one.
    axis = 1 if segment.hidden_out.shape is not None and len(segment.hidden_out.shape) == 2 else 0
    picked = draft.op("Unsqueeze", draft.op("GatherND", hidden, positions), draft.ints(axis))
    lowering.bind(segment.hidden_in, picked)
    lowering.run(before)
    width = int(head.inputs[0].shape[-1])  # type: ignore[index, arg-type]
    states = draft.op("Reshape", lowering.value(head.inputs[0]), draft.ints(-1, width))
    shape = tuple(int(dim) for dim in head.inputs[1].shape or ())  # type: ignore[arg-type]
    bias = checkpoint.name(head.inputs[2]) if len(head.inputs) > 2 and head.inputs[2] else None
    of_tokens = shape[0] == checkpoint.vocab_size
    name = checkpoint.name(head.inputs[1])
    known = Head(name, (shape[0], shape[1]), bias, checkpoint, of_tokens)
    return lowering, states, known, (head, tuple(after))


def dot(
    draft: GraphBuilder,
    states: ir.Value,
    head: Head,
    quant: Quant,
    ids: ir.Value,
    axis: ir.Value | None,
) -> ir.Value:
    """Append the logits of chosen tokens.

    They are sums over the last axis, not a matrix product: the rounding of a sum does not depend on
    how many states share the pass.

    Args:
        draft: the graph.
        states: (T, H).
        head: its parameters.
        quant: form of its matrix.
        ids: the tokens.
        axis: constant 0 to score all `ids` for every state; None for one id per state.
    """
    rows = embedding_rows(draft, head.name, head.shape, head.form(quant), ids)
    width = head.shape[1]
    if axis is None:
        product = aligned(draft, draft.op("Mul", states, rows), width)
        logits = draft.op("ReduceSum", product, draft.ints(1), keepdims=1)
    else:
        pairs = draft.op(
            "Mul", draft.op("Unsqueeze", states, draft.ints(1)), draft.op("Unsqueeze", rows, axis)
        )
        logits = draft.op("ReduceSum", aligned(draft, pairs, width, 3), draft.ints(2), keepdims=0)
    if head.bias is not None:
        bias = PlannedTensor(head.bias, "F32", (head.shape[0],), (head.bias,), "plain", False)
        chosen = draft.op("Gather", draft.weight(bias), ids, axis=0)
        if axis is None:
            chosen = draft.op("Unsqueeze", chosen, draft.ints(1))
        logits = draft.op("Add", logits, chosen)
    return logits


def _after(draft: GraphBuilder, value: ir.Value, total: ir.Value | None) -> ir.Value:
    """Append the same value, made to depend on `total`.

    Without this ONNX Runtime expands and multiplies all chunks of the vocabulary before it reduces
    one, and S x V logits are in memory at once after all. The total is at least 1 and finite, so
    0 times it changes nothing.
    """
    if total is None:
        return value
    largest = draft.op("ReduceMax", total, draft.ints(0, 1), keepdims=0)
    return draft.op("Add", value, draft.op("Mul", largest, draft.scalar(0.0)))


def aligned(draft: GraphBuilder, terms: ir.Value, width: int, rank: int = 2) -> ir.Value:
    """Append zeros to the last axis up to a multiple of 16, so that rows start on 64 bytes.

    ONNX Runtime sums a row in vectors that begin at an aligned address. Without the zeros the
    rounding of a row would depend on its address, that is on how many rows come before it.
    """
    missing = -width % 16
    if not missing:
        return terms
    return draft.op("Pad", terms, draft.ints(*[0] * (2 * rank - 1), missing))


def chunk_logits(
    draft: GraphBuilder,
    states: ir.Value,
    head: Head,
    quant: Quant,
    tokens: range,
    total: ir.Value | None,
) -> ir.Value:
    """Append the logits (T, len(tokens)) of a range of the vocabulary, computed after `total`."""
    span = (tokens.start, tokens.stop)
    logits = _chunk_product(draft, states, head, head.form(quant), tokens, total)
    if head.bias is not None:
        bias = PlannedTensor(head.bias, "F32", (head.shape[0],), (head.bias,), "plain", False)
        logits = draft.op("Add", logits, draft.weight(bias, span))
    return logits


def _chunk_product(
    draft: GraphBuilder,
    states: ir.Value,
    head: Head,
    form: TableForm,
    tokens: range,
    total: ir.Value | None,
) -> ir.Value:
    """Append the products of states with the rows of a range of the vocabulary."""
    if isinstance(form, CodeForm):
        start = _zero_after(draft, total)
        part = kept_part(draft, head.name, form, head.shape, tokens, start)
        return rows_times(draft, states, part, form, head.shape[1])
    table, scale = embedding_tensors(head.name, head.shape, form)
    span = (tokens.start, tokens.stop)
    rows = draft.weight(table, span)
    if form == "fp16":
        start = _zero_after(draft, total)
        chunk = draft.op("Slice", rows, start, draft.ints(len(tokens)), draft.ints(0))
        chunk = draft.op("Reshape", chunk, draft.ints(len(tokens), head.shape[1]))
        rows = draft.op("Cast", chunk, to=int(ir.DataType.FLOAT))
    elif scale is None:
        states = _after(draft, states, total)
    else:
        vector = _after(draft, draft.weight(scale, span, shape=(len(tokens),)), total)
        zero = draft.constant(np.full(len(tokens), ZERO_POINT, np.uint8))
        rows = draft.op("DequantizeLinear", rows, vector, zero, axis=0)
    return draft.op("Gemm", states, rows, transB=1)


def _zero_after(draft: GraphBuilder, total: ir.Value | None) -> ir.Value:
    """Append (1,) int64 of value 0: where to start to take rows, known after `total`.

    What is made of a weight itself would come too early.
    """
    first = draft.op("Cast", _after(draft, draft.scalar(0.0), total), to=int(ir.DataType.INT64))
    return draft.op("Reshape", first, draft.ints(1))


def after_head(
    lowering: SegmentLowering,
    segment: Segment,
    tail: Tail,
    logits: ir.Value,
) -> ir.Value:
    """Append the element-wise nodes that follow the head (a soft cap, a scale)."""
    head, nodes = tail
    if not nodes:
        return logits
    lowering.forget(nodes)
    lowering.bind(head.outputs[0], logits)
    lowering.run(nodes)
    return lowering.value(segment.hidden_out)


def split_at_head(nodes: Sequence[ir.Node]) -> tuple[Sequence[ir.Node], ir.Node, Sequence[ir.Node]]:
    """Split the epilogue into the nodes before the head, the head, and the nodes after it."""
    heads = [n for n in nodes if n.domain == DOMAIN and n.op_type == "Linear"]
    if not heads:
        raise UnsupportedModelError("the model has no language-model head")
    position = list(nodes).index(heads[-1])
    return nodes[:position], heads[-1], nodes[position + 1 :]
