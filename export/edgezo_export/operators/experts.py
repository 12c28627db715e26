"""Products of tokens with the experts that they are routed to.

Every expert multiplies its own tokens only; where there are none, the product has no rows, and
nothing of the expert's weights is read; exact gradients and GPUs read all. The order of a token's
experts is that of its routing, whatever other tokens share the pass.

With coded int8 (`edgezo_export.operators.linear`) the groups of a pass are mixed row by row, so an
expert gets a token in every group if one group routes it there; what a group did not ask for is
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.linear import LinearLowering, LinearSpec

_INT64 = int(ir.DataType.INT64)
_FLOAT = int(ir.DataType.FLOAT)


@dataclass(frozen=True, slots=True)
class Routing:
    """Which rows go to which expert, N pairs of a token of a group and an expert, by expert.

    Attributes:
        counts: (E,) int64, pairs of each expert.
        tokens: (G, N) rows of the input (T, K).
        slots: (G, N) rows of the input (T * k, K), where each choice has a row of its own.
        back: (T, k) rows of the result (G * N, out).
        slots_per_token: k.
    """

    counts: ir.Value
    tokens: ir.Value
    slots: ir.Value
    back: ir.Value
    slots_per_token: int


def emit_routing(
    draft: GraphBuilder, index: ir.Value, groups: ir.Value, experts: int, slots: int
) -> Routing:
    """Append the bookkeeping of a routing.

    Args:
        draft: the graph.
        index: (T, k) int64, the experts of every token.
        groups: (1,) int64, G; the rows of a group follow each other.
        experts: E.
        slots: k.
    """
    op, ints = draft.op, draft.ints
    zero, one = draft.constant(np.int64(0)), draft.constant(np.int64(1))
    chosen = op("Reshape", index, op("Concat", groups, ints(-1, slots), axis=0))  # (G, T', k)
    count = op("Shape", chosen, start=1, end=2)
    numbers = draft.constant(np.arange(experts, dtype=np.int64))
    hits = op("Equal", op("Unsqueeze", chosen, ints(3)), numbers)
    hits = op("Cast", hits, to=int(ir.DataType.INT32))  # (G, T', k, E)
    wanted = op("Transpose", op("ReduceMax", hits, ints(0, 2), keepdims=0), perm=[1, 0])  # (E, T')
    pairs = op("NonZero", op("Cast", wanted, to=int(ir.DataType.BOOL)))
    expert, token = draft.ops("Split", 2, pairs, ints(1, 1), axis=0)  # (1, N) each
    counts = op("Cast", op("ReduceSum", wanted, ints(1), keepdims=0), to=_INT64)
    whole = op("Squeeze", groups)
    group = op("Unsqueeze", op("Range", zero, whole, one), ints(1))  # (G, 1)
    tokens = op("Add", op("Mul", group, count), token)
    slot = op("ArgMax", hits, axis=2, keepdims=0)  # (G, T', E)
    flat = op("Add", op("Mul", tokens, numbers_of(draft, experts)), expert)
    own = op("Gather", op("Reshape", slot, ints(-1)), flat, axis=0)
    rows = op("Add", op("Mul", tokens, numbers_of(draft, slots)), own)
    flat_wanted = op("Cast", op("Reshape", wanted, ints(-1)), to=_INT64)
    place = op("CumSum", flat_wanted, zero, exclusive=1)  # (E * T',)
    within = op("Unsqueeze", op("Range", zero, op("Squeeze", count), one), ints(1))  # (T', 1)
    pair = op("Gather", place, op("Add", op("Mul", chosen, count), within), axis=0)  # (G, T', k)
    total = op("ReduceSum", counts, ints(0), keepdims=1)
    start = op("Unsqueeze", op("Mul", group, total), ints(2))  # (G, 1, 1)
    back = op("Reshape", op("Add", pair, start), ints(-1, slots))
    return Routing(counts, tokens, rows, back, slots)


def numbers_of(draft: GraphBuilder, number: int) -> ir.Value:
    """Return a constant int64 scalar."""
    return draft.constant(np.int64(number))


def emit_expert_linear(
    draft: GraphBuilder,
    linears: LinearLowering,
    specs: list[LinearSpec],
    x: ir.Value,
    routing: Routing,
    *,
    by_slot: bool,
) -> ir.Value:
    """Append the products (T, k, out) of every token with its experts.

    Args:
        draft: the graph.
        linears: appends frozen linear layers.
        specs: the matrix of each expert.
        x: (T, K), or (T, k, K) if `by_slot`.
        routing: of the tokens.
        by_slot: has every choice of a token a row of its own?
    """
    width, out = specs[0].in_features, sum(specs[0].sizes)
    rows = draft.op("Reshape", x, draft.ints(-1, width))
    picked = draft.op("Gather", rows, routing.slots if by_slot else routing.tokens, axis=0)
    parts = draft.ops("Split", len(specs), picked, routing.counts, axis=1)
    used: Sequence[ir.Value | None] = [None] * len(specs)
    if not draft.gpu:  # weights lie on a GPU as a whole
        least = draft.op("Min", routing.counts, draft.ints(1))
        used = draft.ops("Split", len(specs), least, draft.ints(*[1] * len(specs)), axis=0)
    made = []
    others = len(draft.weights)
    for spec, part, one in zip(specs, parts, used, strict=True):
        leading = draft.op("Shape", part, start=0, end=2)
        made.append(linears.emit(spec, part, leading, one))
    if not draft.gpu:
        draft.routed += [binding.input for binding in draft.weights[others:]]
    joined = draft.op("Reshape", draft.op("Concat", *made, axis=1), draft.ints(-1, out))
    return draft.op("Gather", joined, routing.back, axis=0)
