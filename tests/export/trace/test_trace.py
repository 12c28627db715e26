"""What a trace holds."""

from __future__ import annotations

import pytest

from edgezo_export.trace.symbols import DOMAIN
from edgezo_export.trace.trace import trace_model
from tests.export.tiny_models import MAX_SEQ, TINY


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-tied", "roberta"])
def test_a_trace_has_symbols_and_no_weights(name):
    kind = TINY[name]
    model = kind.make()
    trace = trace_model(model.config, type(model), causal=not kind.encoder, max_seq=MAX_SEQ)
    graph = trace.model.graph
    inputs = ["input_ids", "attention_mask"] if kind.encoder else ["input_ids"]
    assert [value.name for value in graph.inputs] == inputs
    assert trace.layers == tuple(f"{kind.layers}.{index}" for index in range(2))
    symbols = {node.op_type for node in graph if node.domain == DOMAIN}
    assert {"Linear", "Attention"} <= symbols
    assert ("RmsNorm" in symbols) is not kind.encoder
    assert bool(trace.tied)
    parameters = {f"model.{name}" for name, _ in model.named_parameters()}
    assert parameters & graph.initializers.keys()
