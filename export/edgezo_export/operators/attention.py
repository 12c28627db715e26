"""Recognize the attention of a trace and append the operator that computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.group_query import GroupQuery, Past
from edgezo_export.operators.multi_head import emit_multi_head, window_bias
from edgezo_export.trace.masks import Visibility
from edgezo_export.trace.symbols import DOMAIN
from edgezo_export.trace.values import constant, present

Lower = Callable[[ir.Value], ir.Value]
"""Traced value -> the value that stands for it in the graph being built."""

RotaryCache = Callable[[ir.Value, bool], ir.Value]
"""Traced table, and whether it is a half -> its (P + S, D/2) form."""

_OVER_TOKENS = frozenset(
    {"Conv", "ConvTranspose", "CumSum", "Scan", "Loop", "Range", "RNN", "LSTM"}
)
"""Operators that mix or count the tokens of a row."""
_HEAD_MULTIPLE = 8
_ROTARY_MULTIPLE = 16


def heads_source(value: ir.Value) -> ir.Value | None:
    """Return x (R, S, n * D) if `value` is Transpose(Reshape(x, [R, S, n, D]), [0, 2, 1, 3])."""
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


def rotary_width(node: ir.Node) -> int:
    """Return how many numbers of each head an edgezo::Rotary turns; its tables may be halves.

    Raises:
        UnsupportedModelError: it is not fixed.
    """
    table = node.inputs[1]
    width = None if table is None or table.shape is None else table.shape[-1]
    if not isinstance(width, int):
        raise UnsupportedModelError(f"rotary embedding {node.name!r} of a width that is not fixed")
    return width * 2 if node.attributes["half"].value else width


def rotary_inputs(value: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Return (x, cos, sin) if `value` is their rotary embedding."""
    producer = value.producer()
    if producer is None or producer.domain != DOMAIN or producer.op_type != "Rotary":
        return None
    x, cos, sin = producer.inputs
    if x is None or cos is None or sin is None:
        return None
    return x, cos, sin


@dataclass(frozen=True, slots=True)
class Mask:
    """The keys that an attention sees, and the traced padding mask (R, S) int32, if any."""

    seen: Visibility
    padding: ir.Value | None


def mask_of(node: ir.Node) -> Mask:
    """Return the mask of an edgezo::Attention.

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


def sinks_of(node: ir.Node) -> ir.Value | None:
    """Return the traced sinks (N,) of an edgezo::Attention, if it has some."""
    return node.inputs[4] if len(node.inputs) > 4 else None


def rotates_heads(node: ir.Node) -> bool:
    """Tell whether this attention can apply the rotary embedding of its query and key itself.

    ONNX Runtime's operator turns the first numbers of each head, a multiple of 16.
    """
    if node.domain != DOMAIN or node.op_type != "Attention" or not mask_of(node).seen.causal:
        return False
    q, k = (None if value is None else rotary_inputs(value) for value in node.inputs[:2])
    if q is None or k is None or q[1:] != k[1:] or q[0].shape is None:
        return False
    head_dim, value = q[0].shape[3], node.inputs[2]
    if not isinstance(head_dim, int) or value is None:
        return False
    width = rotary_width(present(present(node.inputs[0]).producer()))
    return width % _ROTARY_MULTIPLE == 0 and head_dim >= _static(value, 3)


def continues(nodes: Sequence[ir.Node]) -> bool:
    """Tell whether a layer can continue from the keys and values of earlier tokens.

    It can if its only attention is the only node that depends on positions.
    """
    symbols = [node for node in nodes if node.domain == DOMAIN]
    attentions = [node for node in symbols if node.op_type == "Attention"]
    if len(attentions) != 1 or not mask_of(attentions[0]).seen.causal:
        return False
    if any(node.op_type in _OVER_TOKENS for node in nodes):
        return False
    rotates = rotates_heads(attentions[0])
    return rotates or not any(node.op_type == "Rotary" for node in symbols)


def _padded(head_dim: int) -> int:
    return -(-head_dim // _HEAD_MULTIPLE) * _HEAD_MULTIPLE


class AttentionLowering:
    """Appends attention nodes to one graph.

    Args:
        draft: the graph.
        lower: returns the value of a traced value.
        rotary_cache: returns the (P + S, D/2) table of a traced cos or sin (1, S, D), or of one of
            its halves.
        past: earlier tokens; None if the layer cannot have any.
    """

    def __init__(
        self, draft: GraphBuilder, lower: Lower, rotary_cache: RotaryCache, past: Past | None
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
        partial = False
        rotary_q, rotary_k = rotary_inputs(q), rotary_inputs(k)
        if rotary_q and rotary_k and rotates_heads(node):
            rotary = present(q.producer())
            half = bool(rotary.attributes["half"].value)
            q, k = rotary_q[0], rotary_k[0]
            partial = rotary_width(rotary) < width
            tables = tuple(self._rotary_cache(table, half) for table in rotary_q[1:])
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
            partial=partial,
            sinks=None if (sinks := sinks_of(node)) is None else self._lower(sinks),
        )
        return attention.emit(query, key, value, self._past)[0]

    def _bidirectional(
        self, node: ir.Node, q: ir.Value, k: ir.Value, v: ir.Value, width: int
    ) -> ir.Value:
        heads = _static(q, 1)
        if _static(k, 1) != heads or node.attributes["softcap"].value or sinks_of(node):
            raise UnsupportedModelError(
                "bidirectional attention with grouped heads, a soft cap or sinks"
            )
        mask = mask_of(node)
        window = mask.seen.window
        query, key, value = (self._flat(x, width) for x in (q, k, v))
        padding = None if mask.padding is None else self._lower(mask.padding)
        bias = window_bias(self._draft, self._lower(q), window) if window else None
        scale = float(node.attributes["scale"].value)
        return emit_multi_head(self._draft, (query, key, value), heads, scale, padding, bias)

    def _flat(self, heads: ir.Value, width: int) -> ir.Value:
        """Return (R, n, S, D) as (R, S, n * width), without moving data if the trace allows it.

        Zeros after the D values of a head change neither scores nor results.
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


def _static(value: ir.Value, axis: int) -> int:
    dim = None if value.shape is None else value.shape[axis]
    if not isinstance(dim, int):
        raise UnsupportedModelError(f"attention: dimension {axis} of {value.name!r} is not fixed")
    return dim
