"""Fused operators written out in standard ones that have a derivative.

The graphs that run forward use ONNX Runtime's fused operators. Those that run backward recompute
the same numbers from these expansions, see `edgezo_export.derivatives.adjoint`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import Expansion, GraphBuilder

_UNSEEN = -1e9
"""Added to the score of a key that is not seen; finite, so that a row that sees none is no NaN."""

Inputs = Sequence[ir.Value | None]
Attributes = Mapping[str, Any]


def _quick_gelu(
    draft: GraphBuilder, inputs: Inputs, attributes: Attributes
) -> tuple[ir.Value, ...]:
    """x sigmoid(alpha x)."""
    x = _given(inputs, 0)
    alpha = float(attributes.get("alpha", 1.702))
    scaled = x if alpha == 1 else draft.op("Mul", x, draft.scalar(alpha))
    return (draft.op("Mul", x, draft.op("Sigmoid", scaled)),)


def _gelu(draft: GraphBuilder, inputs: Inputs, attributes: Attributes) -> tuple[ir.Value, ...]:
    """x (1 + erf(x / sqrt 2)) / 2, or its approximation by a hyperbolic tangent."""
    x = _given(inputs, 0)
    if attributes.get("approximate", "none") == "tanh":
        cube = draft.op("Mul", draft.op("Mul", x, x), x)
        inner = draft.op("Add", x, draft.op("Mul", cube, draft.scalar(0.044715)))
        gate = draft.op("Tanh", draft.op("Mul", inner, draft.scalar(math.sqrt(2 / math.pi))))
    else:
        gate = draft.op("Erf", draft.op("Mul", x, draft.scalar(math.sqrt(0.5))))
    half = draft.op("Mul", x, draft.scalar(0.5))
    return (draft.op("Mul", half, draft.op("Add", gate, draft.scalar(1.0))),)


def _rms_norm(draft: GraphBuilder, inputs: Inputs, attributes: Attributes) -> tuple[ir.Value, ...]:
    """x / sqrt(mean(x^2) + epsilon) * gain."""
    x, gain = _given(inputs, 0), _given(inputs, 1)
    return (draft.op("Mul", _normalised(draft, x, attributes), gain),)


def _layer_norm(
    draft: GraphBuilder, inputs: Inputs, attributes: Attributes
) -> tuple[ir.Value, ...]:
    """The same of x - mean(x), and a bias."""
    x, gain = _given(inputs, 0), _given(inputs, 1)
    centred = draft.op("Sub", x, draft.op("ReduceMean", x, draft.ints(-1), keepdims=1))
    result = draft.op("Mul", _normalised(draft, centred, attributes), gain)
    if len(inputs) > 2 and inputs[2] is not None:
        result = draft.op("Add", result, inputs[2])
    return (result,)


def _normalised(draft: GraphBuilder, x: ir.Value, attributes: Attributes) -> ir.Value:
    if int(attributes.get("axis", -1)) != -1:
        raise UnsupportedModelError("a norm over more than the last axis")
    square = draft.op("ReduceMean", draft.op("Mul", x, x), draft.ints(-1), keepdims=1)
    epsilon = draft.scalar(float(attributes.get("epsilon", 1e-5)))
    root = draft.op("Sqrt", draft.op("Add", square, epsilon))
    return draft.op("Mul", x, draft.op("Reciprocal", root))


def _group_query(
    draft: GraphBuilder, inputs: Inputs, attributes: Attributes
) -> tuple[ir.Value, ...]:
    """Causal attention to new tokens, every one of which counts, and to earlier ones.

    Keys and values are those of P earlier tokens, whether they count in a row or not, and behind
    them those of the new ones; the fused operator leaves no gap.
    """
    heads, groups = int(attributes["num_heads"]), int(attributes["kv_num_heads"])
    query, key = (_heads(draft, _given(inputs, i), n) for i, n in ((0, heads), (1, groups)))
    value = _heads(draft, _given(inputs, 2), groups)
    past = (inputs[3], inputs[4]) if inputs[3] is not None and inputs[4] is not None else None
    places = _Places.of(draft, query, past and past[0], _given(inputs, 5))
    if attributes.get("do_rotary"):
        tables = _given(inputs, 7), _given(inputs, 8)
        query, key = (_turned(draft, x, tables, places.queries) for x in (query, key))
    if past is not None:
        key = draft.op("Concat", past[0], key, axis=2)
        value = draft.op("Concat", past[1], value, axis=2)
    seen = places.seen(draft, int(attributes.get("local_window_size", -1)))
    bias = draft.op("Where", seen, draft.scalar(0.0), draft.scalar(_UNSEEN))
    cap = float(attributes.get("softcap", 0.0))
    scale = float(attributes["scale"])
    result = _attend(draft, (query, key, value), (heads, groups), scale, [bias], cap)
    return result, key, value


def _multi_head(
    draft: GraphBuilder, inputs: Inputs, attributes: Attributes
) -> tuple[ir.Value, ...]:
    """Attention to all keys but those of padding, with a bias (1, 1, S, S) if there is one."""
    heads = int(attributes["num_heads"])
    query, key, value = (_heads(draft, _given(inputs, index), heads) for index in range(3))
    biases = [] if len(inputs) <= 5 or inputs[5] is None else [inputs[5]]
    if len(inputs) > 4 and inputs[4] is not None:
        counts = draft.op("Cast", inputs[4], to=int(ir.DataType.BOOL))
        bias = draft.op("Where", counts, draft.scalar(0.0), draft.scalar(_UNSEEN))
        biases.append(draft.op("Unsqueeze", bias, draft.ints(1, 2)))
    scale = float(attributes["scale"])
    return (_attend(draft, (query, key, value), (heads, heads), scale, biases, 0.0),)


def _heads(draft: GraphBuilder, flat: ir.Value, heads: int) -> ir.Value:
    """(R, S, n * D) -> (R, n, S, D)."""
    split = draft.op("Reshape", flat, draft.ints(0, 0, heads, -1))
    return draft.op("Transpose", split, perm=[0, 2, 1, 3])


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the tokens of an attention stand in their rows.

    Attributes:
        queries: (R, S) int64, positions of the new tokens.
        keys: (R, P + S), positions of all.
        counts: (R, P + S) bool, which of them are there.
    """

    queries: ir.Value
    keys: ir.Value
    counts: ir.Value

    @classmethod
    def of(
        cls, draft: GraphBuilder, query: ir.Value, past: ir.Value | None, last: ir.Value
    ) -> _Places:
        """Those of query (R, n, S, D) behind past (R, n, P, D).

        Args:
            draft: the graph.
            query: of new tokens.
            past: keys of earlier ones.
            last: (R,) int32, position of each row's last token.
        """
        zero, one = draft.constant(np.int64(0)), draft.constant(np.int64(1))
        tokens = draft.op("Squeeze", draft.op("Shape", query, start=2, end=3))
        earlier = zero
        if past is not None:
            earlier = draft.op("Squeeze", draft.op("Shape", past, start=2, end=3))
        end = draft.op("Add", draft.op("Cast", last, to=int(ir.DataType.INT64)), one)
        first = draft.op("Unsqueeze", draft.op("Sub", end, tokens), draft.ints(1))
        queries = draft.op("Add", first, draft.op("Range", zero, tokens, one))
        index = draft.op("Range", zero, draft.op("Add", earlier, tokens), one)
        new = draft.op("GreaterOrEqual", index, earlier)
        behind = draft.op("Add", first, draft.op("Sub", index, earlier))
        keys = draft.op("Where", new, behind, index)
        counts = draft.op("Or", new, draft.op("Less", index, first))
        return cls(queries, keys, counts)

    def seen(self, draft: GraphBuilder, window: int) -> ir.Value:
        """(R, 1, S, P + S) bool: a key is there, not behind the query, and in the window."""
        queries = draft.op("Unsqueeze", self.queries, draft.ints(1, 3))
        keys, counts = (
            draft.op("Unsqueeze", value, draft.ints(1, 2)) for value in (self.keys, self.counts)
        )
        distance = draft.op("Sub", queries, keys)
        seen = draft.op(
            "And", counts, draft.op("GreaterOrEqual", distance, draft.constant(np.int64(0)))
        )
        if window <= 0:
            return seen
        return draft.op("And", seen, draft.op("Less", distance, draft.constant(np.int64(window))))


def _turned(
    draft: GraphBuilder, x: ir.Value, tables: tuple[ir.Value, ir.Value], places: ir.Value
) -> ir.Value:
    """x (R, n, S, D) turned by tables (P + S, D/2) at places (R, S)."""
    half = None if tables[0].shape is None else tables[0].shape[-1]
    if not isinstance(half, int):
        raise UnsupportedModelError("a rotary table of unknown width")
    cos, sin = (
        draft.op("Unsqueeze", draft.op("Gather", table, places, axis=0), draft.ints(1))
        for table in tables
    )
    left, right = draft.ops("Split", 2, x, draft.ints(half, half), axis=-1)
    return draft.op(
        "Concat",
        draft.op("Sub", draft.op("Mul", left, cos), draft.op("Mul", right, sin)),
        draft.op("Add", draft.op("Mul", right, cos), draft.op("Mul", left, sin)),
        axis=-1,
    )


def _attend(
    draft: GraphBuilder,
    states: tuple[ir.Value, ir.Value, ir.Value],
    heads: tuple[int, int],
    scale: float,
    biases: Sequence[ir.Value],
    cap: float,
) -> ir.Value:
    """softmax(scale q k^T + bias) v as (R, S, N * D).

    The query heads that share a key head lie behind each other, so no key is ever repeated.
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
    weights = draft.op("Softmax", scores, axis=-1)
    if shared:
        weights = draft.op("Reshape", weights, draft.ints(0, groups, -1, 0))
    result = draft.op("MatMul", weights, value)
    if shared:  # (R, N, S, D)
        result = draft.op("Reshape", result, draft.ints(0, queries, -1, 0))
    by_token = draft.op("Transpose", result, perm=[0, 2, 1, 3])
    return draft.op("Reshape", by_token, draft.ints(0, 0, -1))


def _given(inputs: Inputs, index: int) -> ir.Value:
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        raise UnsupportedModelError(f"an operator without its input {index}")
    return value


PLAIN: dict[str, Expansion] = {
    "Gelu": _gelu,
    "GroupQueryAttention": _group_query,
    "LayerNormalization": _layer_norm,
    "MultiHeadAttention": _multi_head,
    "QuickGelu": _quick_gelu,
    "SimplifiedLayerNormalization": _rms_norm,
}
"""What each fused operator is made of."""
