"""Nodes that compute sizes, told from those that compute values."""

from __future__ import annotations

from onnx import TensorProto, helper

from edgezo_runtime.bundle.size_nodes import size_nodes


def test_what_comes_from_shapes_alone_is_a_size() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], name="shape"),
        helper.make_node("Add", ["shape", "one"], ["more"], name="more"),
        helper.make_node("Range", ["zero", "more", "one"], ["index"], name="index"),
        helper.make_node("Cast", ["lengths"], ["wide"], name="wide", to=TensorProto.INT64),
        helper.make_node("Sub", ["wide", "more"], ["first"], name="first"),
        helper.make_node("Reshape", ["x", "more"], ["y"], name="y"),
        helper.make_node("Clip", ["more", "", "one"], ["least"], name="least"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in ("x", "lengths")]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])]
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [1], [number])
        for number, name in enumerate(("zero", "one"))
    ]
    graph = helper.make_graph(nodes, "g", ends, made, constants)
    content = helper.make_model(graph).SerializeToString()
    assert size_nodes(content) == {"shape", "more", "index", "least"}
