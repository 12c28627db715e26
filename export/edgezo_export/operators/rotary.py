"""Rotary position embedding in standard operators.

Causal attention rotates its heads by itself where it can; these functions serve the other models
and the expansion of that attention.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder


def emit_rotary(
    draft: GraphBuilder, x: ir.Value, cos: ir.Value, sin: ir.Value, head_dim: int, width: int
) -> ir.Value:
    """Append x * cos + rotate_half(x) * sin.

    Args:
        draft: the graph.
        x: (R, n, S, D).
        cos: (1, S, r), r <= D: the first r numbers of each head are turned.
        sin: likewise.
        head_dim: D.
        width: r.
    """
    if width < head_dim:
        first, rest = draft.ops("Split", 2, x, draft.ints(width, head_dim - width), axis=-1)
        return draft.op("Concat", emit_rotary(draft, first, cos, sin, width, width), rest, axis=-1)
    halves = draft.ints(head_dim // 2, head_dim // 2)
    left, right = draft.ops("Split", 2, x, halves, axis=-1)
    rotated = draft.op("Concat", draft.op("Neg", right), left, axis=-1)
    axis = draft.ints(1)
    return draft.op(
        "Add",
        draft.op("Mul", x, draft.op("Unsqueeze", cos, axis)),
        draft.op("Mul", rotated, draft.op("Unsqueeze", sin, axis)),
    )


def emit_rotary_cache(
    draft: GraphBuilder, table: ir.Value, head_dim: int, half: bool = False
) -> ir.Value:
    """Append (1, S, D) -> (S, D/2): its halves are equal; or (1, S, D/2), one `half` of it."""
    if half:
        return draft.op("Squeeze", table, draft.ints(0))
    half_table = draft.op("Slice", table, draft.ints(0), draft.ints(head_dim // 2), draft.ints(2))
    return draft.op("Squeeze", half_table, draft.ints(0))


def emit_rotary_at(
    draft: GraphBuilder,
    x: ir.Value,
    tables: tuple[ir.Value, ir.Value],
    positions: ir.Value,
    partial: bool = False,
) -> ir.Value:
    """Append the rotation of x (R, n, S, D) by tables (P + S, r/2) at positions (R, S).

    The first r numbers of each head are turned; r < D only if `partial`.
    """
    half = None if tables[0].shape is None else tables[0].shape[-1]
    if not isinstance(half, int):
        raise UnsupportedModelError("a rotary table of unknown width")
    cos, sin = (
        draft.op("Unsqueeze", draft.op("Gather", table, positions, axis=0), draft.ints(1))
        for table in tables
    )
    rest: list[ir.Value] = []
    if partial:
        width, end, last = 2 * half, draft.ints(np.iinfo(np.int64).max), draft.ints(3)
        rest = [draft.op("Slice", x, draft.ints(width), end, last)]
        x = draft.op("Slice", x, draft.ints(0), draft.ints(width), last)
    left, right = draft.ops("Split", 2, x, draft.ints(half, half), axis=-1)
    return draft.op(
        "Concat",
        draft.op("Sub", draft.op("Mul", left, cos), draft.op("Mul", right, sin)),
        draft.op("Add", draft.op("Mul", right, cos), draft.op("Mul", left, sin)),
        *rest,
        axis=-1,
    )
