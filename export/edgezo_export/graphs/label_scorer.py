"""The graph that scores label words."""

from __future__ import annotations

import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.head import after_head, dot, gathered
from edgezo_export.operators.layers import Quant
from edgezo_export.trace.partition import Segment


def lower_label_scorer(
    segment: Segment, checkpoint: Checkpoint, quant: Quant, hidden_size: int
) -> GraphBuilder:
    """hidden (R, S, H), positions (T, 2), label_ids (C,) -> label_logits (T, C)."""
    draft = GraphBuilder("score_labels")
    lowering, states, head, tail = gathered(draft, segment, checkpoint, hidden_size)
    label_ids = draft.input("label_ids", ir.DataType.INT64, ("labels",))
    logits = dot(draft, states, head, quant, label_ids, draft.ints(0))
    result = after_head(lowering, segment, tail, logits)
    draft.output(result, "label_logits", ir.DataType.FLOAT, ("scored", "labels"))
    return draft
