"""Requests of blocks to the prologue."""

from __future__ import annotations

import onnx_ir as ir

from edgezo_export.graphs.context import Context, dynamic_shape


def test_a_tensor_is_requested_once_per_form():
    context = Context()
    value = ir.Value(name="cos")
    assert context.tensor(value) == context.tensor(value) == "context_0"
    assert context.rotary_cache(value) == context.rotary_cache(value) == "context_1.rotary_cache"
    assert context.needed == {"context_0": value, "context_1.rotary_cache": value}


def test_symbols_are_renamed_by_their_axis():
    shape = ir.Shape(["s0", "s1", 8])
    assert dynamic_shape(ir.Value(name="x", shape=shape)) == ("rows", "tokens", 8)
    assert dynamic_shape(ir.Value(name="x", shape=ir.Shape([1, "s1"]))) == (1, "tokens")
