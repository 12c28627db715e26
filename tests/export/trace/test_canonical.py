"""Each rewriting on a small graph: the form it gives, and that numbers stay the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgezo_export.trace.canonical import canonicalize
from edgezo_export.trace.symbols import DOMAIN
from edgezo_export.trace.values import constant

X = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)


class Builder:
    """A graph x (rows, tokens, 8) -> y under construction."""

    def __init__(self) -> None:
        shape = ir.Shape(["rows", "tokens", 8])
        self.x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
        self.nodes: list[ir.Node] = []

    def op(self, op_type, *inputs, shape=None, outputs=1, dtype=ir.DataType.FLOAT, **attributes):
        node = ir.node(op_type, inputs, attributes, num_outputs=outputs)
        for value in node.outputs:
            value.dtype = dtype
            value.shape = None if shape is None else ir.Shape(shape)
        self.nodes.append(node)
        return node.outputs[0] if outputs == 1 else node.outputs

    def ints(self, *values):
        return self.op("Constant", value_ints=list(values), dtype=ir.DataType.INT64)

    def model(self, output: ir.Value) -> ir.Model:
        output.name = "y"
        graph = ir.Graph([self.x], [output], nodes=self.nodes, opset_imports={"": 21}, name="g")
        for index, value in enumerate(v for node in graph for v in node.outputs):
            value.name = value.name or f"v{index}"
        return ir.Model(graph, ir_version=10)


def run(model: ir.Model, x=X) -> np.ndarray:
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph if node.op_type != "Constant"]


def test_shape_arithmetic_becomes_a_constant_reshape():
    b = Builder()
    sizes = b.op("Shape", b.x, start=0, end=2, dtype=ir.DataType.INT64)
    shape = b.op("Concat", sizes, b.ints(2, 4), axis=0, dtype=ir.DataType.INT64)
    model = b.model(b.op("Reshape", b.x, shape, shape=["rows", "tokens", 2, 4]))
    before = run(model)
    canonicalize(model)
    assert kinds(model) == ["Reshape"]
    (reshape,) = (node for node in model.graph if node.op_type == "Reshape")
    assert constant(reshape.inputs[1]).tolist() == [0, 0, 2, 4]
    assert np.array_equal(run(model), before)


def test_a_reshape_with_two_unknowns_stays():
    b = Builder()
    sizes = b.op("Shape", b.x, dtype=ir.DataType.INT64)
    turned = b.op("Gather", sizes, b.ints(1, 0, 2), axis=0, dtype=ir.DataType.INT64)
    model = b.model(b.op("Reshape", b.x, turned, shape=["tokens", "rows", 8]))
    before = run(model)
    canonicalize(model)
    assert kinds(model) == ["Shape", "Gather", "Reshape"]
    assert np.array_equal(run(model), before)


def test_a_reshaped_constant_is_a_constant():
    b = Builder()
    scale = b.op("Constant", value_floats=[0.5])
    scalar = b.op("Reshape", scale, b.ints(1, 1))
    model = b.model(b.op("Mul", b.x, scalar, shape=["rows", "tokens", 8]))
    canonicalize(model)
    assert kinds(model) == ["Mul"]
    assert np.array_equal(run(model), X * 0.5)


def test_a_sequence_becomes_a_split():
    b = Builder()
    sizes = b.ints(3, 5)
    sequence = b.op("SplitToSequence", b.x, sizes, axis=2)
    parts = []
    for index, size in enumerate((3, 5)):
        at = b.op("Constant", value=ir.tensor(np.int64(index)), dtype=ir.DataType.INT64)
        parts.append(b.op("SequenceAt", sequence, at, shape=["rows", "tokens", size]))
    model = b.model(b.op("Concat", *reversed(parts), axis=2, shape=["rows", "tokens", 8]))
    canonicalize(model)
    assert kinds(model) == ["Split", "Concat"]
    assert np.array_equal(run(model), np.concatenate([X[..., 3:], X[..., :3]], -1))


@pytest.mark.parametrize("turned", [False, True])
def test_x_times_its_sigmoid_is_silu(turned):
    b = Builder()
    gate = b.op("Sigmoid", b.x)
    factors = (gate, b.x) if turned else (b.x, gate)
    model = b.model(b.op("Mul", *factors, shape=["rows", "tokens", 8]))
    canonicalize(model)
    (node,) = model.graph
    assert (node.domain, node.op_type) == (DOMAIN, "Silu")


def test_another_product_with_a_sigmoid_stays():
    b = Builder()
    other = b.op("Neg", b.x)
    model = b.model(b.op("Mul", other, b.op("Sigmoid", b.x), shape=["rows", "tokens", 8]))
    canonicalize(model)
    assert sorted(kinds(model)) == ["Mul", "Neg", "Sigmoid"]


def test_casts_of_constants_identities_and_dead_nodes_go():
    b = Builder()
    two = b.op("Constant", value=ir.tensor(np.array(2, np.int64)), dtype=ir.DataType.INT64)
    cast = b.op("Cast", two, to=int(ir.DataType.FLOAT))
    b.op("Exp", b.x)  # nobody reads it
    copy = b.op("Identity", b.x)
    model = b.model(b.op("Mul", copy, cast, shape=["rows", "tokens", 8]))
    canonicalize(model)
    assert kinds(model) == ["Mul"]
    assert np.array_equal(run(model), X * 2)


@pytest.mark.parametrize(("place", "turned"), [(4, True), (3, False)])
def test_a_rotation_of_the_first_numbers_of_each_head(place, turned):
    """Concat(Rotary(x[..., :4]), x[..., 4:]); another part of x is no such rotation."""
    b = Builder()
    last, end = b.ints(2), b.ints(99)
    first = b.op("Slice", b.x, b.ints(0), b.ints(4), last, shape=["rows", "tokens", 4])
    rest = b.op("Slice", b.x, b.ints(place), end, last, shape=["rows", "tokens", 8 - place])
    tables = [b.op("Identity", b.x, shape=["rows", "tokens", 4]) for _ in "cs"]
    rotary = ir.node("Rotary", [first, *tables], {"half": 0}, domain=DOMAIN, num_outputs=1)
    rotary.outputs[0].shape = ir.Shape(["rows", "tokens", 4])
    b.nodes.append(rotary)
    joined = b.op("Concat", rotary.outputs[0], rest, axis=-1, shape=["rows", "tokens", 8])
    model = b.model(b.op("Neg", joined))
    canonicalize(model)
    assert ("Concat" not in kinds(model)) is turned
    (own,) = (node for node in model.graph if node.op_type == "Rotary")
    assert (own.inputs[0] is b.x) is turned
    assert own.attributes["half"].value == 0
