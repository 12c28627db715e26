"""Writes the graphs that come with the runtime:

python -m tests.runtime.devices.packaged_graphs
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, helper

from edgezo_runtime.devices import self_test
from edgezo_runtime.generation import device_cache

FOLDER = Path(self_test.__file__).parent

_FLOAT, _INT64 = TensorProto.FLOAT, TensorProto.INT64
_PAST = (_FLOAT, ["rows", "heads", "past", "width"])

Ends = dict[str, tuple[int, list[str | int]]]


def self_test_graph() -> bytes:
    """Norm, a product with weights in 4 bits, softmax of similarities, a product."""
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
    inputs: Ends = {
        "x": (_FLOAT, ["rows", width]),
        "gain": (_FLOAT, [width]),
        "weight": (TensorProto.UINT8, [width, width // group, group // 2]),
        "scale": (_FLOAT, [width, width // group]),
    }
    return _content("self_test", nodes, inputs, {"y": (_FLOAT, ["rows", width])})


def cache_tokens() -> bytes:
    """Puts new keys or values in their places."""
    nodes = [
        helper.make_node("Gather", ["made", "taken"], ["new"], name="take", axis=2),
        helper.make_node("ScatterND", ["past", "places", "new"], ["kept"], name="put"),
    ]
    inputs: Ends = {
        "past": _PAST,
        "made": (_FLOAT, ["own", "heads", "tokens", "width"]),
        "taken": (_INT64, ["count"]),
        "places": (_INT64, ["own", "heads", "count", 3]),
    }
    return _content("cache_tokens", nodes, inputs, {"kept": _PAST})


def cache_room() -> bytes:
    """Puts more room behind keys or values."""
    nodes = [helper.make_node("Concat", ["past", "more"], ["kept"], name="join", axis=2)]
    inputs: Ends = {"past": _PAST, "more": (_FLOAT, ["rows", "heads", "room", "width"])}
    kept = (_FLOAT, ["rows", "heads", "total", "width"])
    return _content("cache_room", nodes, inputs, {"kept": kept})


def cache_rows() -> bytes:
    """Picks rows of keys or values."""
    nodes = [helper.make_node("Gather", ["past", "index"], ["kept"], name="pick", axis=0)]
    inputs: Ends = {"past": _PAST, "index": (_INT64, ["picked"])}
    kept = (_FLOAT, ["picked", "heads", "past", "width"])
    return _content("cache_rows", nodes, inputs, {"kept": kept})


GRAPHS: dict[str, Callable[[], bytes]] = {
    self_test.GRAPH: self_test_graph,
    device_cache.TOKENS: cache_tokens,
    device_cache.ROOM: cache_room,
    device_cache.ROWS: cache_rows,
}
"""What makes each file."""


def _content(name: str, nodes: list[NodeProto], inputs: Ends, outputs: Ends) -> bytes:
    taken, given = (
        [helper.make_tensor_value_info(name, *kind) for name, kind in ends.items()]
        for ends in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, name, taken, given)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model: ModelProto = helper.make_model(
        graph, opset_imports=opsets, ir_version=10, producer_name="edgezo"
    )
    made: bytes = model.SerializeToString(deterministic=True)
    return made


if __name__ == "__main__":
    for file, make in GRAPHS.items():
        (FOLDER / file).write_bytes(make())
