"""The graph that gives the logits of the whole vocabulary at a few positions, to generate."""

from __future__ import annotations

import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.head import CHUNK, after_head, chunk_logits, gathered
from edgezo_export.operators.layers import Quant
from edgezo_export.trace.partition import Segment


def lower_logits(
    segment: Segment, checkpoint: Checkpoint, quant: Quant, hidden_size: int
) -> GraphBuilder:
    """hidden (R, S, H), positions (T, 2) -> logits (T, V), in chunks of the vocabulary.

    Products with the int8 head itself (MatMulInteger, states split into two 8-bit parts) were
    measured: 6 ms per token of SmolLM2-135M, no faster than casting the head to float32 and
    multiplying, which gives exactly the logits of the token scorer.
    """
    draft = GraphBuilder("logits")
    lowering, states, head, tail = gathered(draft, segment, checkpoint, hidden_size)
    size = head.shape[0]
    parts: list[ir.Value] = []
    before: ir.Value | None = None  # chunk after chunk, else all are float32 at once
    for start in range(0, size, CHUNK):
        tokens = range(start, min(start + CHUNK, size))
        before = chunk_logits(draft, states, head, quant, tokens, before)
        parts.append(after_head(lowering, segment, tail, before))
    whole = parts[0] if len(parts) == 1 else draft.op("Concat", *parts, axis=1)
    draft.output(whole, "logits", ir.DataType.FLOAT, ("scored", size))
    return draft
