"""Causal attention: ONNX Runtime's GroupQueryAttention, and its expansion.

Both take the keys and values of earlier tokens, where there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgezo_export.graph_builder import MICROSOFT, GraphBuilder
from edgezo_export.operators.inputs import Attributes, Inputs, given
from edgezo_export.operators.rotary import emit_rotary_at
from edgezo_export.operators.softmax_attention import HIDDEN_SCORE, softmax_attention, split_heads
from edgezo_export.schemes.block_edits import BlockEdits
from edgezo_runtime.bundle.manifest_types import NEW, PAST

_INT32 = int(ir.DataType.INT32)
SINKS = 11
"""The input of ONNX Runtime's operator that takes sinks."""


class Past:
    """The keys and values of earlier tokens (inputs of a graph) and of all tokens (outputs).

    Args:
        draft: the graph.
        edits: the scheme's edits, which may put virtual tokens in front.
    """

    def __init__(self, draft: GraphBuilder, edits: BlockEdits) -> None:
        self._draft = draft
        self._edits = edits
        self._outputs: tuple[ir.Value, ir.Value] | None = None
        self._virtual: ir.Value | None = None
        self._shape: tuple[int | str, ...] = ()

    def inputs(self, heads: int, width: int) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Declare earlier keys and values (R, n, P, D), and the valid tokens of P per row (R,)."""
        draft = self._draft
        self._shape = ("rows", heads, "past", width)
        key, value = (draft.input(name, ir.DataType.FLOAT, self._shape) for name in PAST)
        lengths = draft.input("past_lengths", ir.DataType.INT32, ("rows",))
        if draft.gpu:
            lengths = draft.op("Cast", lengths, to=_counts(draft))
        edits = self._edits.attention(heads, width)
        if not edits:
            return key, value, lengths
        longer = self._edits.apply(edits, "key", key)
        self._virtual = draft.op(
            "Sub",
            draft.op("Shape", longer, start=2, end=3),
            draft.op("Shape", key, start=2, end=3),
        )
        lengths = draft.op("Add", lengths, draft.op("Cast", self._virtual, to=_counts(draft)))
        return longer, self._edits.apply(edits, "value", value), lengths

    def bind(self, key: ir.Value, value: ir.Value) -> None:
        """Set the keys and values of all tokens, as the attention returned them."""
        self._outputs = key, value

    def declare_outputs(self) -> None:
        """Make the keys and values outputs of the graph, without those of virtual tokens.

        Graphs for GPUs give those of the new tokens alone.
        """
        draft = self._draft
        for name, value in zip(("key", "value"), self._outputs or (), strict=False):
            count = NEW if draft.gpu else "total"
            shape = (*self._shape[:2], count, self._shape[3])
            if self._virtual is not None and not draft.gpu:
                end = draft.ints(np.iinfo(np.int64).max)
                value = draft.op("Slice", value, self._virtual, end, draft.ints(2))
            draft.output(value, name, ir.DataType.FLOAT, shape)


@dataclass(frozen=True, slots=True)
class GroupQuery:
    """Appends one causal attention.

    Attributes:
        draft: the graph.
        heads: query heads N.
        kv_heads: key-value heads n.
        width: numbers D per head.
        scale: of the scores.
        window: tokens that each token sees, itself included; 0 for all before it.
        softcap: bound of the scores, 0 for none.
        tables: cos and sin (P + S, D/2) of the rotary embedding; empty if the heads come rotated.
        partial: do the tables turn the first numbers of each head only?
        sinks: (N,) the score of one more key per head, which has no value; None for none.
    """

    draft: GraphBuilder
    heads: int
    kv_heads: int
    width: int
    scale: float
    window: int
    softcap: float
    tables: tuple[ir.Value, ...]
    partial: bool = False
    sinks: ir.Value | None = None

    def emit(
        self, query: ir.Value, key: ir.Value, value: ir.Value, past: Past | None
    ) -> tuple[ir.Value, ...]:
        """Append the attention of query (R, S, N * D) to key and value (R, S, n * D) and the past.

        Every new token counts: no token of a causal row sees the padding on its right.

        Returns:
            (R, S, N * D), and the keys and values of earlier and new tokens.
        """
        draft = self.draft
        tokens = draft.op("Shape", query, start=1, end=2)
        one = draft.constant(np.array([1], np.float32 if draft.gpu else np.int32))
        before_last = draft.op("Sub", draft.op("Cast", tokens, to=_counts(draft)), one)
        if past is None:
            last = draft.op("Expand", before_last, draft.op("Shape", query, start=0, end=1))
            return self._node(query, key, value, None, None, last, self._scalar(tokens))
        past_key, past_value, past_lengths = past.inputs(self.kv_heads, self.width)
        before = draft.op("Shape", past_key, start=2, end=3)
        last = draft.op("Add", past_lengths, before_last)
        total = self._scalar(draft.op("Add", tokens, before))
        states = (query, key, value, past_key, past_value, last)
        if draft.unfused or draft.gpu:
            outputs = self._node(*states, total)
            past.bind(*outputs[1:])
            return outputs
        # The operator takes several new tokens after earlier ones for a single row only.
        several = draft.op("Greater", tokens, draft.ints(1))
        outputs = draft.ops(
            "If",
            3,
            draft.op("And", several, draft.op("Greater", before, draft.ints(0))),
            then_branch=draft.body("row_by_row", (), lambda: self._row_by_row(states)),
            else_branch=draft.body("at_once", (), lambda: self._at_once(states, total)),
        )
        past.bind(*outputs[1:])
        return outputs

    def _at_once(self, states: Sequence[ir.Value], total: ir.Value) -> tuple[ir.Value, ...]:
        """One node for all rows, each of P + S tokens."""
        return self._typed("rows", self._node(*states, total))

    def _row_by_row(self, states: Sequence[ir.Value]) -> tuple[ir.Value, ...]:
        """One node per row, with the row's valid tokens only; P holds all of them or grows."""
        draft = self.draft
        names = ("query", "key", "value", "past_key", "past_value", "last")
        types = (*(ir.DataType.FLOAT,) * 5, ir.DataType.INT32)
        parts = [
            ir.Value(name=f"row_{name}", type=ir.TensorType(dtype))
            for name, dtype in zip(names, types, strict=True)
        ]
        axis = draft.ints(0)

        def row() -> tuple[ir.Value, ...]:
            total = draft.op("Add", parts[-1], draft.constant(np.int32(1)))
            outputs = self._node(*(draft.op("Unsqueeze", part, axis) for part in parts), total)
            return self._typed(None, [draft.op("Squeeze", output, axis) for output in outputs])

        body = draft.body("row", parts, row)
        outputs = draft.ops("Scan", 3, *states, num_scan_inputs=len(parts), body=body)
        return self._typed("rows", outputs)

    def _node(self, *inputs: ir.Value | None) -> tuple[ir.Value, ...]:
        # onnxruntime 1.19 does not know the attribute
        extra: dict[str, float] = {"softcap": self.softcap} if self.softcap else {}
        expanded = self.draft.unfused or self.draft.gpu
        if self.partial and expanded:  # the operator sees it by the width of the tables
            extra["partial_rotary"] = 1
        more: list[ir.Value | None] = list(self.tables)
        if self.sinks is not None:
            more += [None] * (SINKS - len(inputs) - len(more))
            more.append(self.sinks)
        return self.draft.ops(
            "GroupQueryAttention",
            3,
            *inputs,
            *more,
            domain=MICROSOFT,
            num_heads=self.heads,
            kv_num_heads=self.kv_heads,
            scale=self.scale,
            do_rotary=int(bool(self.tables)),
            local_window_size=self.window or -1,
            **extra,
        )

    def _scalar(self, count: ir.Value) -> ir.Value:
        """int64 (1,) -> int32 ()."""
        return self.draft.op("Squeeze", self.draft.op("Cast", count, to=_INT32))

    def _typed(self, rows: str | None, outputs: Sequence[ir.Value]) -> tuple[ir.Value, ...]:
        """Set the shapes of a body's outputs; for a single row (None) they have no first axis."""
        leading = () if rows is None else (rows,)
        cached = (self.kv_heads, "total", self.width)
        shapes = (("tokens", self.heads * self.width), cached, cached)
        for value, shape in zip(outputs, shapes, strict=True):
            value.type = ir.TensorType(ir.DataType.FLOAT)
            value.shape = ir.Shape((*leading, *shape))
        return tuple(outputs)


def _counts(draft: GraphBuilder) -> int:
    """The type that tokens are counted in: whole numbers would be added on the processor, for which
    a GPU stops, and what follows from them as well."""
    return int(ir.DataType.FLOAT) if draft.gpu else _INT32


def unfused_group_query(
    draft: GraphBuilder, inputs: Inputs, attributes: Attributes
) -> tuple[ir.Value, ...]:
    """Causal attention to the new tokens, which all count, and to the valid earlier tokens.

    The keys and values returned are those of all P earlier tokens, valid or not, followed by those
    of the new tokens; the fused operator leaves no gap between them.
    """
    heads, groups = int(attributes["num_heads"]), int(attributes["kv_num_heads"])
    query, key = (split_heads(draft, given(inputs, i), n) for i, n in ((0, heads), (1, groups)))
    value = split_heads(draft, given(inputs, 2), groups)
    past = (inputs[3], inputs[4]) if inputs[3] is not None and inputs[4] is not None else None
    positions = _Positions.of(draft, query, past and past[0], given(inputs, 5))
    if attributes.get("do_rotary"):
        tables = given(inputs, 7), given(inputs, 8)
        at, partial = positions.queries, bool(attributes.get("partial_rotary"))
        query, key = (emit_rotary_at(draft, x, tables, at, partial) for x in (query, key))
    if past is not None:
        key = draft.op("Concat", past[0], key, axis=2)
        value = draft.op("Concat", past[1], value, axis=2)
    seen = positions.seen(draft, int(attributes.get("local_window_size", -1)))
    bias = draft.op("Where", seen, draft.scalar(0.0), draft.scalar(HIDDEN_SCORE))
    cap = float(attributes.get("softcap", 0.0))
    scale = float(attributes["scale"])
    sinks = inputs[SINKS] if len(inputs) > SINKS else None
    states = (query, key, value)
    result = softmax_attention(draft, states, (heads, groups), scale, [bias], cap, sinks)
    return result, key, value


@dataclass(frozen=True, slots=True)
class _Positions:
    """Positions of the tokens of an attention in their rows.

    Attributes:
        queries: (R, S) int64, positions of the new tokens.
        keys: (R, P + S), positions of all tokens.
        counts: (R, P + S) bool, whether a token is valid.
    """

    queries: ir.Value
    keys: ir.Value
    counts: ir.Value

    @classmethod
    def of(
        cls, draft: GraphBuilder, query: ir.Value, past: ir.Value | None, last: ir.Value
    ) -> _Positions:
        """Append the positions of query (R, n, S, D) after past (R, n, P, D).

        Args:
            draft: the graph.
            query: of the new tokens.
            past: keys of earlier tokens.
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
        later = draft.op("Add", first, draft.op("Sub", index, earlier))
        keys = draft.op("Where", new, later, index)
        counts = draft.op("Or", new, draft.op("Less", index, first))
        return cls(queries, keys, counts)

    def seen(self, draft: GraphBuilder, window: int) -> ir.Value:
        """Append (R, 1, S, P + S) bool: a key is valid, not after the query, and in the window."""
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
