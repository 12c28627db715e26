"""Attention and rotary embedding on ONNX Runtime's fused operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import MICROSOFT, GraphBuilder
from edgezo_export.graphs.group_query import GroupQuery, Past
from edgezo_export.trace.canonical import constant
from edgezo_export.trace.masks import Visibility
from edgezo_export.trace.trace import DOMAIN

Lower = Callable[[ir.Value], ir.Value]
"""Traced value -> the value that stands for it in the graph being built."""

_UNSEEN = -1e9
_OVER_TOKENS = frozenset(
    {"Conv", "ConvTranspose", "CumSum", "Scan", "Loop", "Range", "RNN", "LSTM"}
)
"""Operators that look along the tokens, or count them."""
_HEAD_MULTIPLE = 8
_ROTARY_MULTIPLE = 16


def heads_source(value: ir.Value) -> ir.Value | None:
    """x (R, S, n * D) where `value` is Transpose(Reshape(x, [R, S, n, D]), [0, 2, 1, 3])."""
    transpose = value.producer()
    if transpose is None or transpose.op_type != "Transpose":
        return None
    if tuple(transpose.attributes["perm"].value) != (0, 2, 1, 3):
        return None
    heads = transpose.inputs[0]
    reshape = None if heads is None else heads.producer()
    if reshape is None or reshape.op_type != "Reshape":
        return None
    source, shape = reshape.inputs[0], constant(reshape.inputs[1])
    flat = source is not None and source.shape is not None and len(source.shape) == 3
    keeps = shape is not None and len(shape) == 4 and shape[0] in (0, -1) and shape[1] in (0, -1)
    return source if flat and keeps else None


def rotary_inputs(value: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """(x, cos, sin) where `value` is their rotary embedding."""
    producer = value.producer()
    if producer is None or producer.domain != DOMAIN or producer.op_type != "Rotary":
        return None
    x, cos, sin = producer.inputs
    if x is None or cos is None or sin is None:
        return None
    return x, cos, sin


@dataclass(frozen=True, slots=True)
class Mask:
    """Which keys an attention sees, and the traced padding mask (R, S) int32, if any."""

    seen: Visibility
    padding: ir.Value | None


def mask_of(node: ir.Node) -> Mask:
    """The mask of an edgezo::Attention.

    Raises:
        UnsupportedModelError: the model makes or changes the mask itself.
    """
    traced = node.inputs[3] if len(node.inputs) > 3 else None
    if traced is None:
        return Mask(Visibility(bool(node.attributes["causal"].value), 0), None)
    mask = traced.producer()
    if mask is None or mask.domain != DOMAIN or mask.op_type != "Mask":
        raise UnsupportedModelError("attention with a mask that the model makes itself")
    causal, window = (mask.attributes[key].value for key in ("causal", "window"))
    return Mask(Visibility(bool(causal), int(window)), mask.inputs[0])


def turns_heads(node: ir.Node) -> bool:
    """Can this attention apply the rotary embedding of its query and key by itself?

    ONNX Runtime's operator turns heads of a multiple of 16 only, and not those padded with zeros.
    """
    if node.domain != DOMAIN or node.op_type != "Attention" or not mask_of(node).seen.causal:
        return False
    q, k = (None if value is None else rotary_inputs(value) for value in node.inputs[:2])
    if q is None or k is None or q[1:] != k[1:] or q[0].shape is None:
        return False
    head_dim, value = q[0].shape[3], node.inputs[2]
    if not isinstance(head_dim, int) or value is None:
        return False
    return head_dim % _ROTARY_MULTIPLE == 0 and head_dim >= _static(value, 3)


def continues(nodes: Sequence[ir.Node]) -> bool:
    """Can these nodes, a layer, go on from the keys and values of earlier tokens?

    They can if nothing but the one attention depends on positions.
    """
    symbols = [node for node in nodes if node.domain == DOMAIN]
    attentions = [node for node in symbols if node.op_type == "Attention"]
    if len(attentions) != 1 or not mask_of(attentions[0]).seen.causal:
        return False
    if any(node.op_type in _OVER_TOKENS for node in nodes):
        return False
    turned = turns_heads(attentions[0])
    return turned or not any(node.op_type == "Rotary" for node in symbols)


def _padded(head_dim: int) -> int:
    return -(-head_dim // _HEAD_MULTIPLE) * _HEAD_MULTIPLE


class AttentionLowering:
    """Emits attention nodes into one graph.

    Args:
        draft: the graph.
        lower: gives what stands for a traced value.
        rotary_cache: gives the (P + S, D/2) table that stands for a traced cos or sin (1, S, D).
        past: earlier tokens; None where the layer cannot have any.
    """

    def __init__(
        self, draft: GraphBuilder, lower: Lower, rotary_cache: Lower, past: Past | None
    ) -> None:
        self._draft = draft
        self._lower = lower
        self._rotary_cache = rotary_cache
        self._past = past

    def emit(self, node: ir.Node) -> ir.Value:
        """Lower one edgezo::Attention; result (R, S, n, D)."""
        q, k, v = node.inputs[:3]
        if q is None or k is None or v is None:
            raise UnsupportedModelError("attention without query, key and value")
        draft = self._draft
        value_dim = _static(v, 3)
        width = _padded(max(_static(q, 3), value_dim))
        lower = self._causal if mask_of(node).seen.causal else self._bidirectional
        flat = lower(node, q, k, v, width)
        result = draft.op("Reshape", flat, draft.ints(0, 0, _static(q, 1), width))
        if width == value_dim:
            return result
        return draft.op("Slice", result, draft.ints(0), draft.ints(value_dim), draft.ints(3))

    def _causal(self, node: ir.Node, q: ir.Value, k: ir.Value, v: ir.Value, width: int) -> ir.Value:
        tables: tuple[ir.Value, ...] = ()
        rotary_q, rotary_k = rotary_inputs(q), rotary_inputs(k)
        if rotary_q and rotary_k and turns_heads(node):
            q, k = rotary_q[0], rotary_k[0]
            tables = tuple(self._rotary_cache(table) for table in rotary_q[1:])
        query, key, value = (self._flat(x, width) for x in (q, k, v))
        attention = GroupQuery(
            draft=self._draft,
            heads=_static(q, 1),
            kv_heads=_static(k, 1),
            width=width,
            scale=float(node.attributes["scale"].value),
            window=mask_of(node).seen.window,
            softcap=float(node.attributes["softcap"].value),
            tables=tables,
        )
        return attention.emit(query, key, value, self._past)[0]

    def _bidirectional(
        self, node: ir.Node, q: ir.Value, k: ir.Value, v: ir.Value, width: int
    ) -> ir.Value:
        heads = _static(q, 1)
        if _static(k, 1) != heads or node.attributes["softcap"].value:
            raise UnsupportedModelError("bidirectional attention with grouped heads or a soft cap")
        mask = mask_of(node)
        return self._draft.op(
            "MultiHeadAttention",
            *(self._flat(x, width) for x in (q, k, v)),
            None,
            None if mask.padding is None else self._lower(mask.padding),
            self._window_bias(q, mask.seen.window) if mask.seen.window else None,
            domain=MICROSOFT,
            num_heads=heads,
            scale=float(node.attributes["scale"].value),
        )

    def _window_bias(self, q: ir.Value, window: int) -> ir.Value:
        """(1, 1, S, S): 0 where |q - k| < window, else a number that no score makes up for.

        It is finite: a row that sees nothing must not become NaN.
        """
        draft = self._draft
        tokens = draft.op("Shape", self._lower(q), start=2, end=3)
        index = draft.op(
            "Range",
            *(draft.constant(np.int64(0)), draft.op("Squeeze", tokens)),
            draft.constant(np.int64(1)),
        )
        distance = draft.op(
            "Abs", draft.op("Sub", draft.op("Unsqueeze", index, draft.ints(1)), index)
        )
        near = draft.op("Less", distance, draft.constant(np.int64(window)))
        bias = draft.op("Where", near, draft.scalar(0.0), draft.scalar(_UNSEEN))
        return draft.op("Unsqueeze", bias, draft.ints(0, 1))

    def _flat(self, heads: ir.Value, width: int) -> ir.Value:
        """(R, n, S, D) -> (R, S, n * width), without moving data where the trace allows it.

        Zeros behind the D values of a head change neither scores nor results.
        """
        missing = width - _static(heads, 3)
        source = heads_source(heads)
        if source is not None and not missing:
            return self._lower(source)
        draft = self._draft
        by_token = draft.op("Transpose", self._lower(heads), perm=[0, 2, 1, 3])
        if missing:
            by_token = draft.op("Pad", by_token, draft.ints(*[0] * 7, missing))
        return draft.op("Reshape", by_token, draft.ints(0, 0, _static(heads, 1) * width))


def emit_rotary(
    draft: GraphBuilder, x: ir.Value, cos: ir.Value, sin: ir.Value, head_dim: int
) -> ir.Value:
    """x * cos + rotate_half(x) * sin for x (R, n, S, D) and tables (1, S, D)."""
    halves = draft.ints(head_dim // 2, head_dim // 2)
    left, right = draft.ops("Split", 2, x, halves, axis=-1)
    turned = draft.op("Concat", draft.op("Neg", right), left, axis=-1)
    axis = draft.ints(1)
    return draft.op(
        "Add",
        draft.op("Mul", x, draft.op("Unsqueeze", cos, axis)),
        draft.op("Mul", turned, draft.op("Unsqueeze", sin, axis)),
    )


def emit_rotary_cache(draft: GraphBuilder, table: ir.Value, head_dim: int) -> ir.Value:
    """(1, S, D) -> (S, D/2): both halves of a rotary table are equal."""
    half = draft.op("Slice", table, draft.ints(0), draft.ints(head_dim // 2), draft.ints(2))
    return draft.op("Squeeze", half, draft.ints(0))


def _static(value: ir.Value, axis: int) -> int:
    dim = None if value.shape is None else value.shape[axis]
    if not isinstance(dim, int):
        raise UnsupportedModelError(f"attention: dimension {axis} of {value.name!r} is not fixed")
    return dim
