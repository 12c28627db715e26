"""The graph that gives the log-probabilities of target tokens.

It goes through the vocabulary in chunks with a running maximum and sum (online softmax).
"""

from __future__ import annotations

import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.head import CHUNK, after_head, aligned, chunk_logits, dot, gathered
from edgezo_export.operators.layers import Quant
from edgezo_export.trace.partition import Segment


def lower_token_scorer(
    segment: Segment, checkpoint: Checkpoint, quant: Quant, hidden_size: int
) -> GraphBuilder:
    """hidden (R, S, H), positions (T, 2), targets (T,) -> log_probs (T,)."""
    draft = GraphBuilder("score_tokens")
    lowering, states, head, tail = gathered(draft, segment, checkpoint, hidden_size)
    targets = draft.input("targets", ir.DataType.INT64, ("scored",))
    last = draft.ints(1)
    target = after_head(lowering, segment, tail, dot(draft, states, head, quant, targets, None))
    maximum, total = None, None
    for start in range(0, head.shape[0], CHUNK):
        stop = min(start + CHUNK, head.shape[0])
        chunk = chunk_logits(draft, states, head, quant, range(start, stop), total)
        logits = after_head(lowering, segment, tail, chunk)
        largest = draft.op("ReduceMax", logits, last, keepdims=1)
        shifted = draft.op("Exp", draft.op("Sub", logits, largest))
        mass = draft.op("ReduceSum", aligned(draft, shifted, stop - start), last, keepdims=1)
        if maximum is None or total is None:
            maximum, total = largest, mass
            continue
        higher = draft.op("Max", maximum, largest)
        total = draft.op(
            "Add",
            draft.op("Mul", total, draft.op("Exp", draft.op("Sub", maximum, higher))),
            draft.op("Mul", mass, draft.op("Exp", draft.op("Sub", largest, higher))),
        )
        maximum = higher
    if maximum is None or total is None:
        raise UnsupportedModelError("a vocabulary of no tokens")
    # Not Log: ONNX Runtime rounds its last few elements differently, so the result of a token would
    # depend on how many tokens share the pass. A reduction takes each logarithm separately.
    logarithm = draft.op("ReduceLogSum", total, last, keepdims=1)
    normalizer = draft.op("Add", maximum, logarithm)
    log_probs = draft.op("Squeeze", draft.op("Sub", target, normalizer), last)
    draft.output(log_probs, "log_probs", ir.DataType.FLOAT, ("scored",))
    return draft
