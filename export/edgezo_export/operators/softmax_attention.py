"""Attention in standard operators: what both kinds of fused attention are expanded into."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder

HIDDEN_SCORE = -1e9
"""Added to the score of a key that a query does not see.

It is finite: a row that sees no key at all must not become NaN."""


def split_heads(draft: GraphBuilder, flat: ir.Value, heads: int) -> ir.Value:
    """Append (R, S, n * D) -> (R, n, S, D)."""
    split = draft.op("Reshape", flat, draft.ints(0, 0, heads, -1))
    return draft.op("Transpose", split, perm=[0, 2, 1, 3])


def softmax_attention(
    draft: GraphBuilder,
    states: tuple[ir.Value, ir.Value, ir.Value],
    heads: tuple[int, int],
    scale: float,
    biases: Sequence[ir.Value],
    cap: float,
    sinks: ir.Value | None = None,
) -> ir.Value:
    """Append softmax(scale q k^T + bias) v as (R, S, N * D).

    Query heads that share a key head follow each other, so no key is ever repeated.

    Args:
        draft: the graph.
        states: query (R, N, S, D), key and value (R, n, P + S, D).
        heads: N and n.
        scale: of the scores.
        biases: added to the scores (R, N, S, P + S).
        cap: bound of the scores, 0 for none.
        sinks: (N,) the score of one more key per head, which has no value; None for none.
    """
    query, key, value = states
    queries, groups = heads
    shared = queries != groups
    scaled = draft.op("Mul", query, draft.scalar(scale))
    if shared:  # (R, n, N/n * S, D)
        scaled = draft.op("Reshape", scaled, draft.ints(0, groups, -1, 0))
    scores = draft.op("MatMul", scaled, draft.op("Transpose", key, perm=[0, 1, 3, 2]))
    if shared:  # (R, N, S, S)
        scores = draft.op("Reshape", scores, draft.ints(0, queries, -1, 0))
    if cap:
        bounded = draft.op("Tanh", draft.op("Mul", scores, draft.scalar(1 / cap)))
        scores = draft.op("Mul", bounded, draft.scalar(cap))
    for bias in biases:
        scores = draft.op("Add", scores, bias)
    if sinks is not None:
        column = draft.op("Reshape", sinks, draft.ints(1, queries, 1, 1))
        lead = draft.op("Concat", draft.op("Shape", scores, start=0, end=3), draft.ints(1), axis=0)
        scores = draft.op("Concat", scores, draft.op("Expand", column, lead), axis=-1)
    weights = draft.op("Softmax", scores, axis=-1)
    if sinks is not None:
        weights = draft.op("Slice", weights, draft.ints(0), draft.ints(-1), draft.ints(3))
    if shared:
        weights = draft.op("Reshape", weights, draft.ints(0, groups, -1, 0))
    result = draft.op("MatMul", weights, value)
    if shared:  # (R, N, S, D)
        result = draft.op("Reshape", result, draft.ints(0, queries, -1, 0))
    by_token = draft.op("Transpose", result, perm=[0, 2, 1, 3])
    return draft.op("Reshape", by_token, draft.ints(0, 0, -1))
