"""Writes the graph of the self-test of GPUs:

python -m tests.runtime.devices.self_test_graph
"""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto, helper

from edgezo_runtime.devices import self_test

FILE = Path(self_test.__file__).with_name(self_test.GRAPH)


def content() -> bytes:
    """The file: norm, a product with weights in 4 bits, softmax of similarities, a product."""
    width, group = self_test.WIDTH, self_test.GROUP
    product = {"K": width, "N": width, "bits": 4, "block_size": group, "accuracy_level": 1}
    microsoft = {"domain": "com.microsoft"}
    nodes = [
        helper.make_node("SimplifiedLayerNormalization", ["x", "gain"], ["h"], name="norm"),
        helper.make_node(
            "MatMulNBits", ["h", "weight", "scale"], ["q"], name="product", **microsoft, **product
        ),
        helper.make_node("Transpose", ["h"], ["keys"], name="transpose", perm=[1, 0]),
        helper.make_node("MatMul", ["q", "keys"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["weights"], name="softmax", axis=-1),
        helper.make_node("MatMul", ["weights", "q"], ["y"], name="sum"),
    ]
    ends = {
        "x": (TensorProto.FLOAT, ["rows", width]),
        "gain": (TensorProto.FLOAT, [width]),
        "weight": (TensorProto.UINT8, [width, width // group, group // 2]),
        "scale": (TensorProto.FLOAT, [width, width // group]),
    }
    inputs = [helper.make_tensor_value_info(name, *kind) for name, kind in ends.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", width])
    graph = helper.make_graph(nodes, "self_test", inputs, [output])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="edgezo")
    made: bytes = model.SerializeToString(deterministic=True)
    return made


if __name__ == "__main__":
    FILE.write_bytes(content())
