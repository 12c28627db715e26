"""What is recognized in traced attention."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.operators.attention import (
    continues,
    heads_source,
    mask_of,
    rotary_inputs,
    rotates_heads,
)
from edgezo_export.trace.masks import Visibility
from edgezo_export.trace.symbols import DOMAIN


def value(name: str, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(shape))


def heads(name: str, width: int) -> ir.Value:
    return value(name, "r", 4, "s", width)


def symbol(op_type: str, inputs, shape=None, **attributes) -> ir.Node:
    node = ir.node(op_type, inputs, attributes, domain=DOMAIN, num_outputs=1)
    node.outputs[0].shape = None if shape is None else ir.Shape(shape)
    return node


def attention(
    width: int = 16,
    value_width: int | None = None,
    *,
    rotary: bool,
    causal: int = 1,
    turned: int = 0,
    half: int = 0,
):
    """Nodes of an attention, which comes last; `turned` numbers of each head are turned."""
    q, k = heads("q", width), heads("k", width)
    table = (turned or width) // (1 + half)
    cos, sin = (value(name, 1, "s", table) for name in ("cos", "sin"))
    nodes = []
    if rotary:
        nodes = [symbol("Rotary", [x, cos, sin], ("r", 4, "s", width), half=half) for x in (q, k)]
        q, k = (node.outputs[0] for node in nodes)
    inputs = [q, k, heads("v", value_width or width)]
    return [*nodes, symbol("Attention", inputs, scale=1.0, causal=causal, softcap=0.0)]


@pytest.mark.parametrize(
    ("nodes", "rotates"),
    [
        (attention(16, rotary=True), True),
        (attention(16, rotary=False), False),
        (attention(8, rotary=True), False),  # no multiple of 16
        (attention(40, rotary=True, turned=32), True),
        (attention(32, rotary=True, turned=8), False),
        (attention(16, rotary=True, half=1), True),
        (attention(16, 32, rotary=True), False),  # would be filled with zeros
        (attention(16, rotary=True, causal=0), False),
    ],
)
def test_attention_that_rotates_its_heads(nodes, rotates):
    assert rotates_heads(nodes[-1]) is rotates


def test_a_layer_continues_if_only_its_attention_knows_positions():
    assert continues(attention(16, rotary=True))
    assert continues(attention(8, rotary=False))
    assert not continues(attention(8, rotary=True))  # rotated outside, from position 0
    assert not continues(attention(16, rotary=True, causal=0))
    assert not continues([*attention(16, rotary=True), ir.node("CumSum", [value("x", 1)])])
    assert not continues([*attention(16, rotary=True), *attention(16, rotary=True)])


def test_masks():
    plain = attention(rotary=False)[-1]
    assert mask_of(plain).seen == Visibility(True, 0)
    padding = value("padding", "r", "s")
    mask = symbol("Mask", [padding], causal=0, window=5).outputs[0]
    inputs = [*plain.inputs, mask]
    found = mask_of(symbol("Attention", inputs, scale=1.0, causal=1, softcap=0.0))
    assert (found.seen, found.padding) == (Visibility(False, 5), padding)
    own = ir.node("Add", [padding, padding]).outputs[0]
    with pytest.raises(UnsupportedModelError, match="a mask that the model makes itself"):
        mask_of(symbol("Attention", [*plain.inputs, own], scale=1.0, causal=1, softcap=0.0))


def test_heads_that_need_no_move():
    flat = value("flat", "r", "s", 64)
    shape = ir.node("Constant", [], {"value_ints": ir.AttrInt64s("value_ints", [0, 0, 4, -1])})
    split = ir.node("Reshape", [flat, shape.outputs[0]]).outputs[0]
    assert heads_source(ir.node("Transpose", [split], {"perm": [0, 2, 1, 3]}).outputs[0]) is flat
    assert heads_source(ir.node("Transpose", [split], {"perm": [0, 1, 2, 3]}).outputs[0]) is None
    assert heads_source(flat) is None


def test_inputs_of_a_rotary_embedding():
    rotary, _, node = attention(rotary=True)
    assert rotary_inputs(node.inputs[0]) == tuple(rotary.inputs)
    assert rotary_inputs(node.inputs[2]) is None
