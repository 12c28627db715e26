"""Linear layers that read the same input become one product, unless an edit forbids it."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.linear_layers import LinearLayers
from edgezo_export.operators.linear import LinearLowering
from edgezo_export.schemes import make_scheme
from edgezo_export.schemes.block_edits import BlockEdits
from edgezo_export.trace.symbols import DOMAIN

FLOAT = ir.DataType.FLOAT


def initializer(name: str, *shape: int) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(FLOAT), shape=ir.Shape(shape))


def lower(scheme=None):
    """q and k that read x lowered from q on: the graph, traced outputs, and names of weights."""
    draft = GraphBuilder("layers", "m.")
    x = ir.Value(name="x", type=ir.TensorType(FLOAT), shape=ir.Shape(["rows", "tokens", 8]))
    nodes = [
        ir.node("Linear", [x, initializer(f"model.m.{name}.weight", size, 8)], domain=DOMAIN)
        for name, size in (("q", 6), ("k", 4))
    ]
    own = draft.input("x", FLOAT, ("rows", "tokens", 8))
    edits = None if scheme is None else BlockEdits(draft, scheme, 0, "m", nodes)
    linears = LinearLowering(draft, "fp32")
    layers = LinearLayers(draft, Checkpoint({}, {}, 97), linears, edits, lambda value: own)
    made = layers.lower(nodes[0], {node: index for index, node in enumerate(nodes)})
    assert list(made) == [node.outputs[0] for node in nodes]
    return draft, [binding.tensor for binding in draft.weights]


def kinds(draft: GraphBuilder) -> list[str]:
    return [node.op_type for node in draft.nodes]


def test_layers_of_one_input_are_one_product():
    draft, weights = lower()
    assert weights == ["m.q+k.weight"]
    assert kinds(draft).count("MatMul") == 1
    assert kinds(draft)[-1] == "Split"


@pytest.mark.parametrize(
    ("kind", "options", "weights"),
    [
        ("lora", {"targets": ("q",)}, ["m.q+k.weight"]),  # beside the product
        ("scales", {}, ["m.q+k.weight"]),  # behind it
    ],
)
def test_edits_of_outputs_leave_the_product_whole(kind, options, weights):
    draft, found = lower(make_scheme(kind, options))
    assert found == weights
    assert {binding.tensor.split(".")[1] for binding in draft.trainables} <= {"q", "k"}
    assert draft.trainables


def test_a_layer_whose_weight_trains_comes_alone():
    scheme = make_scheme("last-layers", {})
    resolved = type(scheme)(last_layers=1, first=0)
    draft, weights = lower(resolved)
    assert weights == []
    assert [binding.tensor for binding in draft.trainables] == ["m.q.weight", "m.k.weight"]
