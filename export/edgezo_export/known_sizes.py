"""Sizes that a graph computes from the sizes of its inputs, where these are numbers.

Shape inference of onnx follows some operators on sizes, and not others (Reshape, for one).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Numbers = npt.NDArray[np.int64]

_ARITHMETIC: dict[str, Callable[[Numbers, Numbers], Numbers]] = {
    "Add": np.add,
    "Mul": np.multiply,
    "Sub": np.subtract,
}

_MOST = 16
"""Numbers of the largest value that is a size: a shape has few axes."""


def fill_sizes(graph: onnx.GraphProto, infer: Callable[[onnx.GraphProto], onnx.GraphProto]) -> None:
    """Put numbers in the place of nodes that compute sizes from sizes, as long as any are found.

    Sums and products alone are followed: of numbers that stand for any size, they are equal only
    where they always are.

    Args:
        graph: its inputs have numbers as dimensions; changed in place.
        infer: gives a graph with the shapes of its values.
    """
    known = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.INT64 and np.prod(tensor.dims) <= _MOST
    }
    while True:
        shapes = _whole_shapes(infer(graph))
        left: list[onnx.NodeProto] = []
        for node in graph.node:
            found = _size(node, known, shapes)
            if found is None or found.size > _MOST:
                left.append(node)
                continue
            known[node.output[0]] = found
            graph.initializer.append(numpy_helper.from_array(found, node.output[0]))
        if len(left) == len(graph.node):
            return
        del graph.node[:]
        graph.node.extend(left)


def _whole_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Shapes that are numbers on every axis."""
    found: dict[str, tuple[int, ...]] = {}
    for value in (*graph.input, *graph.value_info):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                found[value.name] = tuple(dim.dim_value for dim in dims)
    return found


def _size(
    node: onnx.NodeProto, known: dict[str, Numbers], shapes: dict[str, tuple[int, ...]]
) -> Numbers | None:
    """What a node makes of sizes; None if it makes something else, or they are not known."""
    options = {own.name: onnx.helper.get_attribute_value(own) for own in node.attribute}
    if node.op_type == "Shape" and node.input[0] in shapes:
        shape = np.array(shapes[node.input[0]], np.int64)
        return shape[options.get("start", 0) : options.get("end", len(shape))]
    if not node.input or any(name not in known for name in node.input):
        return None
    return _made(node.op_type, [known[name] for name in node.input], options)


def _made(operator: str, taken: Sequence[Numbers], options: dict[str, int]) -> Numbers | None:
    first, rest = taken[0], taken[1:]
    if operator in _ARITHMETIC:
        return np.asarray(_ARITHMETIC[operator](first, rest[0]), np.int64)
    if operator == "Concat" and all(own.ndim == 1 for own in taken):
        return np.concatenate(taken)
    if operator == "Gather" and first.ndim == 1:
        return np.asarray(first[rest[0]], np.int64)
    if operator == "Reshape" and first.size == 1:  # the only sizes that are reshaped
        return first.reshape([1] * rest[0].size)
    if operator == "Squeeze" and first.shape == (1,):
        return first.reshape(())
    if operator == "Unsqueeze" and first.ndim == 0:
        return first.reshape(1)
    if operator == "Cast" and options["to"] == onnx.TensorProto.INT64:
        return first
    return first if operator == "Identity" else None
