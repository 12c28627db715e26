"""Graphs under construction."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.quantization.weights_plan import PlannedTensor
from edgezo_runtime.bundle.bundle import Binding

TABLE = PlannedTensor("table", "F32", (6, 4), ("table",), "plain", False)


def draft_with_input() -> tuple[GraphBuilder, ir.Value]:
    draft = GraphBuilder("test")
    return draft, draft.input("x", ir.DataType.FLOAT, ("rows", 4))


def test_equal_constants_are_one():
    draft = GraphBuilder("test")
    assert draft.ints(1, 2) is draft.ints(1, 2)
    assert draft.scalar(1.0) is draft.constant(np.float32(1))
    different = [
        draft.constant(value)
        for value in (np.int64(1), np.int32(1), np.array([1]), np.array([[1]]), np.float32(1))
    ]
    assert len(set(different)) == len(different)


def test_the_same_weight_is_one_input():
    draft = GraphBuilder("test")
    assert draft.weight(TABLE) is draft.weight(TABLE)
    assert draft.weight(TABLE, (0, 2)) is not draft.weight(TABLE, (2, 4))
    assert list(draft.planned) == ["table"]
    assert [binding.tensor for binding in draft.weights] == ["table"] * 3
    assert [binding.start for binding in draft.weights] == [0, 0, 2]


def add_table(draft: GraphBuilder, x: ir.Value, table: PlannedTensor) -> bytes:
    result = draft.op("Add", x, draft.weight(table, (2, 3)))
    draft.output(result, "y", ir.DataType.FLOAT, ("rows", 4))
    return draft.serialize()


def test_a_weight_is_fed():
    draft, x = draft_with_input()
    content = add_table(draft, x, TABLE)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (binding,) = draft.weights
    row = np.arange(4, dtype=np.float32)[None]
    zeros = np.zeros((1, 4), np.float32)
    assert np.array_equal(session.run(None, {"x": zeros, binding.input: row})[0], row)


def test_graphs_of_two_modules_are_the_same_file():
    contents = []
    for module in ("layers.0.", "layers.11."):
        draft = GraphBuilder("test", module)
        x = draft.input("x", ir.DataType.FLOAT, ("rows", 4))
        name = f"{module}mlp.table"
        table = PlannedTensor(name, "F32", (6, 4), (name,), "plain", False)
        contents.append(add_table(draft, x, table))
        assert draft.weights[0].tensor == name
    assert contents[0] == contents[1]


def test_an_input_may_be_an_output_twice():
    draft, x = draft_with_input()
    for name in ("a", "b"):
        draft.output(x, name, ir.DataType.FLOAT, ("rows", 4))
    info = draft.info("graphs/test.onnx")
    assert [tensor.name for tensor in info.outputs] == ["a", "b"]
    content = draft.serialize()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    ones = np.ones((2, 4), np.float32)
    assert all(np.array_equal(out, ones) for out in session.run(None, {"x": ones}))


def test_info_says_what_the_graph_takes():
    draft, x = draft_with_input()
    draft.input("ids", ir.DataType.INT64, ("rows",))
    draft.output(draft.op("Neg", x), "y", ir.DataType.FLOAT, ("rows", 4))
    draft.trainable("m.lora_A", ("copies", 2, 4))
    draft.weight(TABLE)
    info = draft.info("graphs/test.onnx")
    assert [(t.name, t.dtype, t.shape) for t in info.inputs] == [
        ("x", "float32", ("rows", 4)),
        ("ids", "int64", ("rows",)),
        ("m.lora_A", "float32", ("copies", 2, 4)),
        ("table", "float32", (6, 4)),
    ]
    assert info.trainables == (Binding("m.lora_A", "m.lora_A"),)
    assert info.weights == (Binding("table", "table"),)


def test_a_dtype_outside_the_contract():
    draft = GraphBuilder("test")
    draft.input("x", ir.DataType.DOUBLE, ("rows",))
    with pytest.raises(TypeError, match="not part of the graph contract"):
        draft.info("graphs/test.onnx")
