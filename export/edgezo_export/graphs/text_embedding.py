"""Embeddings of texts: the states of a text's tokens pooled, as a vector of length 1.

    e = mean of the states of the tokens up to a position, or the state of the first one;  e / |e|

The graphs have the inputs and outputs of scorers: an embedding is H scores, and its numbers are
chosen by `label_ids` as label words are.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.segment import SegmentLowering
from edgezo_export.operators.linear import LinearLowering
from edgezo_export.trace.partition import Segment

Pooling = Literal["mean", "cls"]

_FLOAT = ir.DataType.FLOAT
_TINY = 1e-24
"""Below the square of any length; keeps a vector of zeros finite."""


def embeddings(
    draft: GraphBuilder,
    segment: Segment,
    checkpoint: Checkpoint,
    hidden_size: int,
    pooling: Pooling,
) -> ir.Value:
    """Append hidden (R, S, H), positions (T, 2) -> embeddings (T, H), up to positions."""
    hidden = draft.input("hidden", _FLOAT, ("rows", "tokens", hidden_size))
    positions = draft.input("positions", ir.DataType.INT64, ("scored", 2))

    def outside(value: ir.Value) -> ir.Value:
        raise UnsupportedModelError(f"the last layers of the model read {value.name!r}")

    states = hidden
    if segment.nodes and segment.hidden_in is not None:
        lowering = SegmentLowering(draft, checkpoint, LinearLowering(draft, "fp32"), outside)
        lowering.bind(segment.hidden_in, hidden)
        lowering.run(segment.nodes)
        states = lowering.value(segment.hidden_out)
    last = draft.ints(1)
    row, place = draft.ops("Split", 2, positions, draft.ints(1, 1), axis=1)  # (T, 1) each
    taken = draft.op("Gather", states, draft.op("Squeeze", row, last), axis=0)  # (T, S, H)
    zero, one = draft.constant(np.int64(0)), draft.constant(np.int64(1))
    tokens = draft.op("Squeeze", draft.op("Shape", hidden, start=1, end=2))
    index = draft.op("Range", zero, tokens, one)
    end = place if pooling == "mean" else draft.constant(np.zeros((1, 1), np.int64))
    seen = draft.op("Cast", draft.op("GreaterOrEqual", end, index), to=int(_FLOAT))  # (T, S)
    weighted = draft.op("Mul", taken, draft.op("Unsqueeze", seen, draft.ints(2)))
    total = draft.op("ReduceSum", weighted, last, keepdims=0)
    count = draft.op("ReduceSum", seen, last, keepdims=1)
    pooled = draft.op("Div", total, count)
    square = draft.op("ReduceSum", draft.op("Mul", pooled, pooled), last, keepdims=1)
    length = draft.op("Sqrt", draft.op("Add", square, draft.scalar(_TINY)))
    return draft.op("Mul", pooled, draft.op("Reciprocal", length))


def chosen_numbers(draft: GraphBuilder, vectors: ir.Value) -> ir.Value:
    """Append label_ids (C,) -> these numbers (T, C) of every embedding."""
    ids = draft.input("label_ids", ir.DataType.INT64, ("labels",))
    by_number = draft.op("Transpose", vectors, perm=[1, 0])
    return draft.op("Transpose", draft.op("Gather", by_number, ids, axis=0), perm=[1, 0])


def numbers_at(draft: GraphBuilder, vectors: ir.Value, size: int) -> ir.Value:
    """Append targets (T,) -> one number (T,) of every embedding."""
    targets = draft.input("targets", ir.DataType.INT64, ("scored",))
    numbers = draft.constant(np.arange(size, dtype=np.int64))
    hit = draft.op("Equal", draft.op("Unsqueeze", targets, draft.ints(1)), numbers)
    own = draft.op("Mul", vectors, draft.op("Cast", hit, to=int(_FLOAT)))
    return draft.op("ReduceSum", own, draft.ints(1), keepdims=0)


def lower_embedding_scorers(
    segment: Segment, checkpoint: Checkpoint, hidden_size: int, pooling: Pooling
) -> tuple[GraphBuilder, GraphBuilder]:
    """Make the graphs in the place of the scorers of label words and of tokens."""
    labels, tokens = GraphBuilder("score_labels"), GraphBuilder("score_tokens")
    own = segment, checkpoint, hidden_size, pooling
    chosen = chosen_numbers(labels, embeddings(labels, *own))
    labels.output(chosen, "label_logits", _FLOAT, ("scored", "labels"))
    at = numbers_at(tokens, embeddings(tokens, *own), hidden_size)
    tokens.output(at, "log_probs", _FLOAT, ("scored",))
    return labels, tokens
