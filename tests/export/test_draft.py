"""Graphs under construction."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgezo_export.draft import GraphDraft
from edgezo_export.weights import PlannedTensor, WrittenTensor

TABLE = PlannedTensor("table", "F32", (6, 4), ("table",), "plain", False)


def draft_with_input() -> tuple[GraphDraft, ir.Value]:
    draft = GraphDraft("test")
    return draft, draft.input("x", ir.DataType.FLOAT, ("rows", 4))


def test_equal_constants_are_one():
    draft = GraphDraft("test")
    assert draft.ints(1, 2) is draft.ints(1, 2)
    assert draft.scalar(1.0) is draft.constant(np.float32(1))
    different = [
        draft.constant(value)
        for value in (np.int64(1), np.int32(1), np.array([1]), np.array([[1]]), np.float32(1))
    ]
    assert len(set(different)) == len(different)


def test_the_same_weight_is_one_initializer():
    draft = GraphDraft("test")
    assert draft.weight(TABLE) is draft.weight(TABLE)
    assert draft.weight(TABLE, (0, 2)) is not draft.weight(TABLE, (2, 4))
    assert list(draft.planned) == ["table"]


def test_rows_of_a_weight_point_into_the_file(tmp_path):
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    (tmp_path / "w").write_bytes(b"\0" * 64 + values.tobytes())
    draft, x = draft_with_input()
    result = draft.op("Add", x, draft.weight(TABLE, (2, 3)))
    draft.output(result, "y", ir.DataType.FLOAT, ("rows", 4))
    model = draft.model("w", {"table": WrittenTensor(64, 96, "F32", (6, 4))})
    ir.save(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    zeros = np.zeros((1, 4), np.float32)
    assert np.array_equal(session.run(None, {"x": zeros})[0], values[2:3])


def test_an_input_may_be_an_output_twice():
    draft, x = draft_with_input()
    for name in ("a", "b"):
        draft.output(x, name, ir.DataType.FLOAT, ("rows", 4))
    info = draft.info("graphs/test.onnx")
    assert [tensor.name for tensor in info.outputs] == ["a", "b"]
    content = ir.to_proto(draft.model("w", {})).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    ones = np.ones((2, 4), np.float32)
    assert all(np.array_equal(out, ones) for out in session.run(None, {"x": ones}))


def test_info_says_what_the_graph_takes():
    draft, x = draft_with_input()
    draft.input("ids", ir.DataType.INT64, ("rows",))
    draft.output(draft.op("Neg", x), "y", ir.DataType.FLOAT, ("rows", 4))
    draft.trainables.append("m.lora_A")
    info = draft.info("graphs/test.onnx")
    assert [(t.name, t.dtype, t.shape) for t in info.inputs] == [
        ("x", "float32", ("rows", 4)),
        ("ids", "int64", ("rows",)),
    ]
    assert info.trainables == ("m.lora_A",)


def test_a_dtype_outside_the_contract():
    draft = GraphDraft("test")
    draft.input("x", ir.DataType.DOUBLE, ("rows",))
    with pytest.raises(TypeError, match="not part of the graph contract"):
        draft.info("graphs/test.onnx")
