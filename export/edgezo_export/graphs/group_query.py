"""Causal attention on ONNX Runtime's GroupQueryAttention, with or without earlier tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgezo_export.graph_builder import MICROSOFT, GraphBuilder
from edgezo_export.graphs.scheme_edits import BlockEdits
from edgezo_runtime.bundle.manifest_types import PAST

_INT32 = int(ir.DataType.INT32)


class Past:
    """Keys and values of earlier tokens as inputs of a graph, and those of all as outputs.

    Args:
        draft: the graph.
        edits: the scheme's, which may put virtual tokens in front.
    """

    def __init__(self, draft: GraphBuilder, edits: BlockEdits) -> None:
        self._draft = draft
        self._edits = edits
        self._outputs: tuple[ir.Value, ir.Value] | None = None
        self._virtual: ir.Value | None = None
        self._shape: tuple[int | str, ...] = ()

    def inputs(self, heads: int, width: int) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Earlier keys and values (R, n, P, D), and how many of P count in each row (R,)."""
        draft = self._draft
        self._shape = ("rows", heads, "past", width)
        key, value = (draft.input(name, ir.DataType.FLOAT, self._shape) for name in PAST)
        lengths = draft.input("past_lengths", ir.DataType.INT32, ("rows",))
        edits = self._edits.attention(heads, width)
        if not edits:
            return key, value, lengths
        longer = self._edits.apply(edits, "key", key)
        self._virtual = draft.op(
            "Sub",
            draft.op("Shape", longer, start=2, end=3),
            draft.op("Shape", key, start=2, end=3),
        )
        lengths = draft.op("Add", lengths, draft.op("Cast", self._virtual, to=_INT32))
        return longer, self._edits.apply(edits, "value", value), lengths

    def bind(self, key: ir.Value, value: ir.Value) -> None:
        """Tell what the attention made of the inputs and its own tokens."""
        self._outputs = key, value

    def declare_outputs(self) -> None:
        """Make key and value outputs of the graph, without those of virtual tokens."""
        draft = self._draft
        for name, value in zip(("key", "value"), self._outputs or (), strict=False):
            shape = (*self._shape[:2], "total", self._shape[3])
            if self._virtual is not None:
                end = draft.ints(np.iinfo(np.int64).max)
                value = draft.op("Slice", value, self._virtual, end, draft.ints(2))
            draft.output(value, name, ir.DataType.FLOAT, shape)


@dataclass(frozen=True, slots=True)
class GroupQuery:
    """Emits one causal attention.

    Attributes:
        draft: the graph.
        heads: query heads N.
        kv_heads: key-value heads n.
        width: numbers D in a head.
        scale: of the scores.
        window: tokens that each sees, itself counted; 0 for all before it.
        softcap: bound of the scores, 0 for none.
        tables: cos and sin (P + S, D/2) by which it turns the heads, or nothing.
    """

    draft: GraphBuilder
    heads: int
    kv_heads: int
    width: int
    scale: float
    window: int
    softcap: float
    tables: tuple[ir.Value, ...]

    def emit(
        self, query: ir.Value, key: ir.Value, value: ir.Value, past: Past | None
    ) -> tuple[ir.Value, ...]:
        """Attention of query (R, S, N * D) to key and value (R, S, n * D), and all before them.

        Every new token counts: right padding is never seen by a causal row.

        Returns:
            (R, S, N * D), and the keys and values of earlier and new tokens.
        """
        draft = self.draft
        tokens = draft.op("Shape", query, start=1, end=2)
        one = draft.constant(np.array([1], np.int32))
        before_last = draft.op("Sub", draft.op("Cast", tokens, to=_INT32), one)
        if past is None:
            last = draft.op("Expand", before_last, draft.op("Shape", query, start=0, end=1))
            return self._node(query, key, value, None, None, last, self._scalar(tokens))
        past_key, past_value, past_lengths = past.inputs(self.kv_heads, self.width)
        before = draft.op("Shape", past_key, start=2, end=3)
        last = draft.op("Add", past_lengths, before_last)
        total = self._scalar(draft.op("Add", tokens, before))
        states = (query, key, value, past_key, past_value, last)
        if draft.plain:
            outputs = self._node(*states, total)
            past.bind(*outputs[1:])
            return outputs
        # The operator takes several new tokens behind others for one row at a time only.
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
        """Every row in one node, of P + S tokens each."""
        return self._typed("rows", self._node(*states, total))

    def _row_by_row(self, states: Sequence[ir.Value]) -> tuple[ir.Value, ...]:
        """A node a row, of as many tokens as count in it; P holds all of them or grows to."""
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
        extra = {"softcap": self.softcap} if self.softcap else {}  # onnxruntime 1.19 has none
        return self.draft.ops(
            "GroupQueryAttention",
            3,
            *inputs,
            *self.tables,
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
        """The outputs of a body, with their shapes; without a first axis where there is no row."""
        leading = () if rows is None else (rows,)
        cached = (self.kv_heads, "total", self.width)
        shapes = (("tokens", self.heads * self.width), cached, cached)
        for value, shape in zip(outputs, shapes, strict=True):
            value.type = ir.TensorType(ir.DataType.FLOAT)
            value.shape = ir.Shape((*leading, *shape))
        return tuple(outputs)
