"""The two ends of a model: scores of label words, and log-probabilities of target tokens.

Both gather the scored positions first, so nothing of size S x V ever exists. The token scorer goes
through the vocabulary in chunks with a running maximum and sum (online softmax).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.embedding import embedding_rows, embedding_tensors
from edgezo_export.graphs.linear import LinearLowering, Quant
from edgezo_export.graphs.lower import (
    Checkpoint,
    SegmentLowering,
    logits_tail,
)
from edgezo_export.quantization.quantize import ZERO_POINT
from edgezo_export.quantization.weights_file import PlannedTensor
from edgezo_export.trace.partition import Segment

CHUNK = 4096
"""Vocabulary entries scored at a time; with H = 576 a float32 chunk takes 9.4 MB."""


@dataclass(frozen=True, slots=True)
class Head:
    """Name and shape (V, H) of the head's matrix, and the name of its bias."""

    name: str
    shape: tuple[int, int]
    bias: str | None


def lower_label_scorer(
    segment: Segment, checkpoint: Checkpoint, quant: Quant, hidden_size: int
) -> GraphBuilder:
    """hidden (R, S, H), positions (T, 2), label_ids (C,) -> label_logits (T, C)."""
    draft = GraphBuilder("score_labels")
    lowering, states, head, tail = gathered(draft, segment, checkpoint, hidden_size)
    label_ids = draft.input("label_ids", ir.DataType.INT64, ("labels",))
    logits = dot(draft, states, head, quant, label_ids, draft.ints(0))
    result = after_head(lowering, segment, tail, logits)
    draft.output(result, "label_logits", ir.DataType.FLOAT, ("scored", "labels"))
    return draft


def lower_token_scorer(
    segment: Segment, checkpoint: Checkpoint, quant: Quant, hidden_size: int
) -> GraphBuilder:
    """hidden (R, S, H), positions (T, 2), targets (T,) -> log_probs (T,)."""
    draft = GraphBuilder("score_tokens")
    lowering, states, head, tail = gathered(draft, segment, checkpoint, hidden_size)
    targets = draft.input("targets", ir.DataType.INT64, ("scored",))
    last = draft.ints(1)
    target = after_head(lowering, segment, tail, dot(draft, states, head, quant, targets, None))
    maximum, total = None, None
    for start in range(0, head.shape[0], CHUNK):
        stop = min(start + CHUNK, head.shape[0])
        chunk = chunk_logits(draft, states, head, quant, range(start, stop), total)
        logits = after_head(lowering, segment, tail, chunk)
        largest = draft.op("ReduceMax", logits, last, keepdims=1)
        shifted = draft.op("Exp", draft.op("Sub", logits, largest))
        mass = draft.op("ReduceSum", _aligned(draft, shifted, stop - start), last, keepdims=1)
        if maximum is None or total is None:
            maximum, total = largest, mass
            continue
        higher = draft.op("Max", maximum, largest)
        total = draft.op(
            "Add",
            draft.op("Mul", total, draft.op("Exp", draft.op("Sub", maximum, higher))),
            draft.op("Mul", mass, draft.op("Exp", draft.op("Sub", largest, higher))),
        )
        maximum = higher
    if maximum is None or total is None:
        raise UnsupportedModelError("a vocabulary of no tokens")
    # Not Log: ONNX Runtime rounds its last few elements differently, so a token's result would
    # depend on how many share the pass. A reduction takes the logarithm one by one.
    logarithm = draft.op("ReduceLogSum", total, last, keepdims=1)
    normaliser = draft.op("Add", maximum, logarithm)
    log_probs = draft.op("Squeeze", draft.op("Sub", target, normaliser), last)
    draft.output(log_probs, "log_probs", ir.DataType.FLOAT, ("scored",))
    return draft


Tail = tuple[ir.Node, tuple[ir.Node, ...]]
"""The head of a model and the nodes behind it."""


def gathered(
    draft: GraphBuilder, segment: Segment, checkpoint: Checkpoint, hidden_size: int
) -> tuple[SegmentLowering, ir.Value, Head, Tail]:
    """The states at the scored positions (T, H) after the model's final norm."""
    hidden = draft.input("hidden", ir.DataType.FLOAT, ("rows", "tokens", hidden_size))
    positions = draft.input("positions", ir.DataType.INT64, ("scored", 2))
    before, head, after = logits_tail(segment.nodes)

    def outside(value: ir.Value) -> ir.Value:
        raise UnsupportedModelError(f"the head of the model reads {value.name!r}")

    lowering = SegmentLowering(draft, checkpoint, LinearLowering(draft, "fp32"), outside)
    if segment.hidden_in is None or head.inputs[0] is None or head.inputs[1] is None:
        raise UnsupportedModelError("the head of the model has no input")
    picked = draft.op("Unsqueeze", draft.op("GatherND", hidden, positions), draft.ints(0))
    lowering.bind(segment.hidden_in, picked)
    lowering.run(before)
    width = int(head.inputs[0].shape[-1])  # type: ignore[index, arg-type]
    states = draft.op("Reshape", lowering.value(head.inputs[0]), draft.ints(-1, width))
    shape = tuple(int(dim) for dim in head.inputs[1].shape or ())  # type: ignore[arg-type]
    bias = checkpoint.name(head.inputs[2]) if len(head.inputs) > 2 and head.inputs[2] else None
    known = Head(checkpoint.name(head.inputs[1]), (shape[0], shape[1]), bias)
    return lowering, states, known, (head, tuple(after))


def dot(
    draft: GraphBuilder,
    states: ir.Value,
    head: Head,
    quant: Quant,
    ids: ir.Value,
    axis: ir.Value | None,
) -> ir.Value:
    """Logits of chosen tokens: of all `ids` for every state (axis given), or one id a state.

    A sum over the last axis, not a matrix product: its rounding does not depend on how many states
    share the pass.
    """
    rows = embedding_rows(draft, head.name, head.shape, quant, ids)
    width = head.shape[1]
    if axis is None:
        product = _aligned(draft, draft.op("Mul", states, rows), width)
        logits = draft.op("ReduceSum", product, draft.ints(1), keepdims=1)
    else:
        pairs = draft.op(
            "Mul", draft.op("Unsqueeze", states, draft.ints(1)), draft.op("Unsqueeze", rows, axis)
        )
        logits = draft.op("ReduceSum", _aligned(draft, pairs, width, 3), draft.ints(2), keepdims=0)
    if head.bias is not None:
        bias = PlannedTensor(head.bias, "F32", (head.shape[0],), (head.bias,), "plain", False)
        chosen = draft.op("Gather", draft.weight(bias), ids, axis=0)
        if axis is None:
            chosen = draft.op("Unsqueeze", chosen, draft.ints(1))
        logits = draft.op("Add", logits, chosen)
    return logits


def _then(draft: GraphBuilder, value: ir.Value, total: ir.Value | None) -> ir.Value:
    """The same value, not to be had before `total` is known.

    Left to itself ONNX Runtime expands and multiplies all chunks of the vocabulary before it
    reduces one, and S x V logits are in memory at once after all. The total is at least 1 and
    finite, so 0 times it changes nothing.
    """
    if total is None:
        return value
    largest = draft.op("ReduceMax", total, draft.ints(0, 1), keepdims=0)
    return draft.op("Add", value, draft.op("Mul", largest, draft.scalar(0.0)))


def _aligned(draft: GraphBuilder, terms: ir.Value, width: int, rank: int = 2) -> ir.Value:
    """Fill the last axis with zeros to a multiple of 16, so that every row starts on 64 bytes.

    ONNX Runtime sums a row in vectors counted from an aligned address: the rounding would depend on
    where the row lies, that is on how many are before it.
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
    """Logits (T, len(tokens)) of a range of the vocabulary, once `total` is known."""
    table, scale = embedding_tensors(head.name, head.shape, quant)
    span = (tokens.start, tokens.stop)
    rows = draft.weight(table, span)
    if scale is None:
        states = _then(draft, states, total)
    else:
        vector = _then(draft, draft.weight(scale, span, shape=(len(tokens),)), total)
        zero = draft.constant(np.full(len(tokens), ZERO_POINT, np.uint8))
        rows = draft.op("DequantizeLinear", rows, vector, zero, axis=0)
    logits = draft.op("Gemm", states, rows, transB=1)
    if head.bias is not None:
        bias = PlannedTensor(head.bias, "F32", (head.shape[0],), (head.bias,), "plain", False)
        logits = draft.op("Add", logits, draft.weight(bias, span))
    return logits


def after_head(
    lowering: SegmentLowering,
    segment: Segment,
    tail: Tail,
    logits: ir.Value,
) -> ir.Value:
    """Apply what follows the head (a soft cap, a scale), element by element."""
    head, nodes = tail
    if not nodes:
        return logits
    lowering.forget(nodes)
    lowering.bind(head.outputs[0], logits)
    lowering.run(nodes)
    return lowering.value(segment.hidden_out)
