"""Bundles whose blocks round activations to float16: what a GPU with 16-bit arithmetic would do.

Products are summed in float32, as GPUs sum those of float16 numbers. The code of a pair goes around
every product with a frozen weight, as in bundles in int8: `code` mixes the copies before they are
rounded, `decode` separates the results.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgezo_runtime.bundle.bundle import MANIFEST_FILE, Bundle

_LAST, _GROUPS = "half.last", "half.groups"


def round_activations(fp32: Path, output: Path, *, everywhere: bool) -> None:
    """Write a bundle that rounds.

    Args:
        fp32: bundle in float32.
        output: folder to make.
        everywhere: round what every node makes, states between blocks among them; else what
            products with frozen weights take and make, in coded copies.
    """
    shutil.copytree(fp32, output, symlinks=True)
    manifest = json.loads((output / MANIFEST_FILE).read_text(encoding="utf-8"))
    for file in {graph.file for graph in Bundle.open(fp32, verify=False).manifest.graphs.blocks}:
        path = output / file
        model = onnx.load(path)
        round_graph(model.graph, everywhere=everywhere)
        content = model.SerializeToString(deterministic=True)
        path.unlink()  # the copy may be a link
        path.write_bytes(content)
        manifest["files"][file] = {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    (output / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")


def round_graph(graph: onnx.GraphProto, *, everywhere: bool) -> None:
    """Round activations of a block in place; see `round_activations`."""
    frozen = {
        value.name
        for value in graph.input
        if len(dims := value.type.tensor_type.shape.dim) == 2
        and all(dim.HasField("dim_value") for dim in dims)
    }
    results = _Results(graph)
    made: list[NodeProto] = [] if everywhere else list(_sizes(graph))
    for node in list(graph.node):
        if everywhere:
            made += results.rounded(node)
        elif node.op_type == "MatMul" and node.input[1] in frozen:
            made += _coded_product(node)
        else:
            made.append(node)
    del graph.node[:]
    graph.node.extend(made)


def _rounded(name: str, source: str, target: str) -> Iterator[NodeProto]:
    """A value rounded to float16, as float32."""
    half = f"{name}.half"
    yield helper.make_node("Cast", [source], [half], to=TensorProto.FLOAT16)
    yield helper.make_node("Cast", [half], [target], to=TensorProto.FLOAT)


_REARRANGING = frozenset(
    {"Concat", "Expand", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators whose results are numbers of their inputs."""

_OTHERS = frozenset({"Cast", "Range", "Shape", "Size"})
"""Operators whose results are no activations, whatever they take."""


class _Results:
    """Rounds the results of nodes that make activations.

    Args:
        graph: its inputs and constants in float32 are what activations are made of.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._floats = {
            value.name
            for value in graph.input
            if value.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self._floats |= {
            tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT
        }

    def rounded(self, node: NodeProto) -> Iterator[NodeProto]:
        """A node, and what rounds its results."""
        makes = node.op_type not in _OTHERS and bool(self._floats.intersection(node.input))
        if makes:
            self._floats.update(node.output)
        if not makes or node.op_type in _REARRANGING:
            yield node
            return
        results = [name for name in node.output if name]
        for place, name in enumerate(node.output):
            node.output[place] = f"{name}.exact" if name else ""
        yield node
        for name in results:
            yield from _rounded(name, f"{name}.exact", name)


def _sizes(graph: onnx.GraphProto) -> Iterator[NodeProto]:
    """Shapes that the coded products share."""
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), _LAST))
    yield helper.make_node("Shape", ["code"], [f"{_GROUPS}.count"], start=0, end=1)
    yield helper.make_node("Concat", [f"{_GROUPS}.count", _LAST], [_GROUPS], axis=0)


def _coded_product(node: NodeProto) -> Iterator[NodeProto]:
    """decode(half(half(code(x)) W))."""
    x, weight = node.input
    (result,) = node.output
    own = f"{result}."
    steps = {name: own + name for name in ("shape", "flat", "mixed", "rows", "taken", "made")}
    yield helper.make_node("Shape", [x], [steps["shape"]])
    yield helper.make_node("Reshape", [x, _GROUPS], [steps["flat"]])
    yield helper.make_node("MatMul", ["code", steps["flat"]], [steps["mixed"]])
    yield helper.make_node("Reshape", [steps["mixed"], steps["shape"]], [steps["rows"]])
    yield from _rounded(own + "x", steps["rows"], steps["taken"])
    yield helper.make_node("MatMul", [steps["taken"], weight], [steps["made"]])
    yield from _rounded(own + "y", steps["made"], own + "y")
    yield helper.make_node("Shape", [own + "y"], [own + "wide"])
    yield helper.make_node("Reshape", [own + "y", _GROUPS], [own + "coded"])
    yield helper.make_node("MatMul", ["decode", own + "coded"], [own + "apart"])
    yield helper.make_node("Reshape", [own + "apart", own + "wide"], [result])
