"""Bidirectional attention: ONNX Runtime's MultiHeadAttention, and its expansion."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgezo_export.graph_builder import MICROSOFT, GraphBuilder
from edgezo_export.operators.inputs import Attributes, Inputs, given
from edgezo_export.operators.softmax_attention import HIDDEN_SCORE, softmax_attention, split_heads


def emit_multi_head(
    draft: GraphBuilder,
    states: tuple[ir.Value, ir.Value, ir.Value],
    heads: int,
    scale: float,
    padding: ir.Value | None,
    bias: ir.Value | None,
) -> ir.Value:
    """Append the attention of every token to all tokens of its row, (R, S, N * D).

    Args:
        draft: the graph.
        states: query, key and value, (R, S, N * D) each.
        heads: N.
        scale: of the scores.
        padding: (R, S) int32, 0 for padding; None where there is none.
        bias: (1, 1, S, S), added to the scores; None where there is none.
    """
    return draft.op(
        "MultiHeadAttention",
        *states,
        None,
        padding,
        bias,
        domain=MICROSOFT,
        num_heads=heads,
        scale=scale,
    )


def window_bias(draft: GraphBuilder, query: ir.Value, window: int) -> ir.Value:
    """Append (1, 1, S, S): 0 where |q - k| < window, else `HIDDEN_SCORE`.

    Args:
        draft: the graph.
        query: (R, n, S, D), whose S counts.
        window: tokens.
    """
    tokens = draft.op("Shape", query, start=2, end=3)
    index = draft.op(
        "Range",
        *(draft.constant(np.int64(0)), draft.op("Squeeze", tokens)),
        draft.constant(np.int64(1)),
    )
    distance = draft.op("Abs", draft.op("Sub", draft.op("Unsqueeze", index, draft.ints(1)), index))
    near = draft.op("Less", distance, draft.constant(np.int64(window)))
    bias = draft.op("Where", near, draft.scalar(0.0), draft.scalar(HIDDEN_SCORE))
    return draft.op("Unsqueeze", bias, draft.ints(0, 1))


def unfused_multi_head(
    draft: GraphBuilder, inputs: Inputs, attributes: Attributes
) -> tuple[ir.Value, ...]:
    """Attention to all keys except padding, with a bias (1, 1, S, S) if there is one."""
    heads = int(attributes["num_heads"])
    query, key, value = (split_heads(draft, given(inputs, index), heads) for index in range(3))
    biases = [] if len(inputs) <= 5 or inputs[5] is None else [inputs[5]]
    if len(inputs) > 4 and inputs[4] is not None:
        counts = draft.op("Cast", inputs[4], to=int(ir.DataType.BOOL))
        bias = draft.op("Where", counts, draft.scalar(0.0), draft.scalar(HIDDEN_SCORE))
        biases.append(draft.op("Unsqueeze", bias, draft.ints(1, 2)))
    scale = float(attributes["scale"])
    states = (query, key, value)
    return (softmax_attention(draft, states, (heads, heads), scale, biases, 0.0),)
