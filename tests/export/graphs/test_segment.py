"""Traced nodes lowered one by one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.segment import SegmentLowering
from edgezo_export.operators.linear import LinearLowering
from edgezo_export.trace.symbols import DOMAIN
from tests.export.graph_runner import run

FLOAT = ir.DataType.FLOAT
X = np.random.default_rng(0).normal(0, 1, (2, 3, 8)).astype(np.float32)


def traced(name: str, *shape: int | str) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(FLOAT), shape=ir.Shape(shape))


def lowering(outside=None) -> tuple[SegmentLowering, ir.Value]:
    """A lowering, and a traced value that stands for its input x."""
    draft = GraphBuilder("segment")

    def refuse(value: ir.Value) -> ir.Value:
        raise UnsupportedModelError(f"{value.name} is made elsewhere")

    linears = LinearLowering(draft, "fp32")
    own = SegmentLowering(draft, Checkpoint({}, {}, 97), linears, outside or refuse)
    x = traced("x", "rows", "tokens", 8)
    own.bind(x, draft.input("x", FLOAT, ("rows", "tokens", 8)))
    return own, x


def result(own: SegmentLowering, value: ir.Value) -> np.ndarray:
    own.draft.output(own.value(value), "y", FLOAT, ("rows", "tokens", 8))
    return run(own.draft, {"x": X})["y"]


def test_standard_operators_are_copied():
    own, x = lowering()
    half = ir.node("Constant", [], {"value_float": ir.AttrFloat32("value_float", 0.5)})
    node = ir.node("Mul", [x, half.outputs[0]])
    own.run([node])
    np.testing.assert_array_equal(result(own, node.outputs[0]), X * np.float32(0.5))


def test_symbols_become_fused_operators():
    own, x = lowering()
    node = ir.node("Silu", [x], domain=DOMAIN)
    own.run([node])
    np.testing.assert_allclose(result(own, node.outputs[0]), X / (1 + np.exp(-X)), atol=1e-6)


def test_nodes_that_are_forgotten_are_lowered_again():
    own, x = lowering()
    node = ir.node("Neg", [x])
    own.run([node])
    first = own.value(node.outputs[0])
    own.run([node])
    assert own.value(node.outputs[0]) is first
    own.forget([node])
    own.run([node])
    assert own.value(node.outputs[0]) is not first


def test_values_of_other_segments_are_asked_for():
    own, _ = lowering()
    made = ir.node("Neg", [traced("z", 1)]).outputs[0]
    made.name = "made"
    with pytest.raises(UnsupportedModelError, match="made is made elsewhere"):
        own.value(made)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (lambda x: ir.node("Odd", [x], domain=DOMAIN), "operator edgezo::Odd"),
        (lambda x: ir.node("Silu", [None], domain=DOMAIN), "without one of its inputs"),
        (
            lambda x: ir.node("If", [x], {"then_branch": ir.Graph([], [], nodes=[])}),
            "If with a subgraph",
        ),
    ],
)
def test_what_cannot_be_lowered(node, message):
    own, x = lowering()
    with pytest.raises(UnsupportedModelError, match=message):
        own.run([node(x)])
