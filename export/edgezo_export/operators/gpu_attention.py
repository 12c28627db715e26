"""Causal attention for GPUs, in standard operators.

The fused operator of the WebGPU provider (0.4.0) takes another path from 32 tokens on, which gives
wrong sums where the GPU runs fewer than 8 lanes together, as the driver that tests run on does. So
it is not used. Positions are float32 numbers, exact below 2^24: providers of GPUs have no 64-bit
integers, and what they lack is computed on the processor, for which they stop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.group_query import SINKS
from edgezo_export.operators.inputs import Attributes, Inputs, given
from edgezo_export.operators.rotary import emit_rotary_at
from edgezo_export.operators.softmax_attention import HIDDEN_SCORE, softmax_attention, split_heads

_FLOAT = int(ir.DataType.FLOAT)


def gpu_group_query(
    draft: GraphBuilder, inputs: Inputs, attributes: Attributes
) -> tuple[ir.Value, ...]:
    """Causal attention to the new tokens, which all count, and to the valid earlier tokens.

    Returns:
        (R, S, N * D), and the keys and values (R, n, S, D) of the new tokens alone.
    """
    heads, groups = int(attributes["num_heads"]), int(attributes["kv_num_heads"])
    query, key = (split_heads(draft, given(inputs, i), n) for i, n in ((0, heads), (1, groups)))
    value = split_heads(draft, given(inputs, 2), groups)
    past = (inputs[3], inputs[4]) if inputs[3] is not None and inputs[4] is not None else None
    places = _Places.of(draft, given(inputs, 0), past and past[0], given(inputs, 5))
    if attributes.get("do_rotary"):
        tables = given(inputs, 7), given(inputs, 8)
        at = draft.op("Cast", places.queries, to=int(ir.DataType.INT32))
        partial = bool(attributes.get("partial_rotary"))
        query, key = (emit_rotary_at(draft, x, tables, at, partial) for x in (query, key))
    own = key, value
    if past is not None:
        key = draft.op("Concat", past[0], key, axis=2)
        value = draft.op("Concat", past[1], value, axis=2)
    biases = places.biases(draft, int(attributes.get("local_window_size", -1)))
    cap = float(attributes.get("softcap", 0.0))
    sinks = inputs[SINKS] if len(inputs) > SINKS else None
    states, scale = (query, key, value), float(attributes["scale"])
    result = softmax_attention(draft, states, (heads, groups), scale, biases, cap, sinks)
    return result, *own


@dataclass(frozen=True, slots=True)
class _Places:
    """Positions of the tokens of an attention in their rows, float32.

    Attributes:
        queries: (R, S) of the new tokens.
        keys: (R, P + S) of all tokens.
        gap: (R, P + S) 0 for a token that counts; above 0 for padding between the earlier
            tokens and the new ones.
    """

    queries: ir.Value
    keys: ir.Value
    gap: ir.Value

    @classmethod
    def of(
        cls, draft: GraphBuilder, query: ir.Value, past: ir.Value | None, last: ir.Value
    ) -> _Places:
        """Append the positions of query (R, S, n * D) after past (R, n, P, D).

        Args:
            draft: the graph.
            query: of the new tokens.
            past: keys of earlier tokens.
            last: (R,) float32, position of each row's last token.
        """
        zero, one = draft.constant(np.int64(0)), draft.constant(np.int64(1))
        tokens = draft.op("Squeeze", draft.op("Shape", query, start=1, end=2))
        earlier = zero
        if past is not None:
            earlier = draft.op("Squeeze", draft.op("Shape", past, start=2, end=3))
        count, before = (draft.op("Cast", size, to=_FLOAT) for size in (tokens, earlier))
        steps = draft.op("Cast", draft.op("Range", zero, tokens, one), to=_FLOAT)
        end = draft.op("Add", last, draft.scalar(1.0))
        first = draft.op("Unsqueeze", draft.op("Sub", end, count), draft.ints(1))  # (R, 1)
        queries = draft.op("Add", first, steps)
        total = draft.op("Add", earlier, tokens)
        index = draft.op("Cast", draft.op("Range", zero, total, one), to=_FLOAT)
        # A token of the past is where it is; a new one, from P on, follows the last of the past.
        new = draft.op("GreaterOrEqual", index, before)
        behind = draft.op("Sub", first, before)
        nothing = draft.op("Mul", behind, draft.scalar(0.0))
        keys = draft.op("Add", index, draft.op("Where", new, behind, nothing))
        over = draft.op("Sub", draft.op("Add", index, draft.scalar(1.0)), first)
        gap = draft.op("Where", new, nothing, draft.op("Relu", over))
        return cls(queries, keys, gap)

    def biases(self, draft: GraphBuilder, window: int) -> list[ir.Value]:
        """Append what is added to the scores (R, N, S, P + S) of tokens that are not seen."""
        queries = draft.op("Unsqueeze", self.queries, draft.ints(1, 3))
        keys, gap = (draft.op("Unsqueeze", x, draft.ints(1, 2)) for x in (self.keys, self.gap))
        distance = draft.op("Sub", queries, keys)
        hidden, seen = draft.scalar(HIDDEN_SCORE), draft.scalar(0.0)
        found = [
            draft.op("Where", draft.op("Less", distance, draft.scalar(0.0)), hidden, seen),
            draft.op("Where", draft.op("Greater", gap, draft.scalar(0.0)), hidden, seen),
        ]
        if window > 0:
            far = draft.op("GreaterOrEqual", distance, draft.scalar(float(window)))
            found.append(draft.op("Where", far, hidden, seen))
        return found
