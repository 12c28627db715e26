"""A graph under construction: nodes, shared constants, and the inputs for weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from edgezo_export.known_sizes import fill_sizes
from edgezo_export.quantization.weights_plan import PlannedTensor
from edgezo_runtime.bundle.manifest_types import Binding, GraphInfo, TensorInfo

MICROSOFT = "com.microsoft"

COPIES = "copies_"
"""Begins the names of the dimension P of trainables."""

IR_VERSION = 10
OPSETS = {"": 21, MICROSOFT: 1}
_DTYPES = {
    "F32": ir.DataType.FLOAT,
    "F16": ir.DataType.FLOAT16,
    "I32": ir.DataType.INT32,
    "I8": ir.DataType.INT8,
    "U8": ir.DataType.UINT8,
}
_FLOAT = onnx.TensorProto.FLOAT
_NAMES = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.INT64: "int64",
    ir.DataType.INT32: "int32",
    ir.DataType.BOOL: "bool",
    ir.DataType.INT8: "int8",
    ir.DataType.UINT8: "uint8",
}


Expansion: TypeAlias = (
    "Callable[[GraphBuilder, Sequence[ir.Value | None], Mapping[str, Any]], tuple[ir.Value, ...]]"
)
"""Appends the expansion of an operator with these inputs and attributes; returns its outputs."""


Shapes: TypeAlias = dict[str, tuple[int | str | None, ...]]
"""The known shapes of values, by name; a str is the same number wherever it occurs."""


class GraphBuilder:
    """Collects one ONNX graph of the bundle.

    Args:
        name: name of the graph.
        module: path of its module, with a dot at the end; omitted from the names of inputs.
        expand: operators that are expanded into others, by type.
        gpu: is it for GPUs, with operators that their providers have?

    Attributes:
        gpu: as given.
    """

    def __init__(
        self,
        name: str,
        module: str = "",
        expand: Mapping[str, Expansion] | None = None,
        *,
        gpu: bool = False,
    ) -> None:
        self.name = name
        self.gpu = gpu
        self.planned: dict[str, PlannedTensor] = {}
        self.trainables: list[Binding] = []
        self.weights: list[Binding] = []
        self.routed: list[str] = []
        self._module = module
        self._nodes: list[ir.Node] = []
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._weights: dict[str, ir.Value] = {}
        self._count = 0
        self._expand = expand or {}

    @property
    def unfused(self) -> bool:
        """Are all fused operators expanded?"""
        return bool(self._expand) and not self.gpu

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """The nodes appended so far."""
        return tuple(self._nodes)

    @property
    def inputs(self) -> dict[str, ir.Value]:
        """The graph inputs declared so far, by name."""
        return {str(value.name): value for value in self._inputs}

    def shapes(self) -> Shapes:
        """Infer the shapes of all values from those of the inputs, and those that are declared.

        For GPUs every dynamic dimension is given a number of its own, above 1, and copies of
        trainables are one: so it is known of every axis whether it is repeated.
        """
        graph = onnx.GraphProto(name=self.name)
        graph.node.extend(ir.serde.serialize_node(node) for node in self._nodes)
        graph.input.extend(ir.serde.serialize_value(value) for value in self._inputs)
        if self.gpu:
            _number_dimensions(graph)
            _show_products(graph)
        made = (value for node in self._nodes for value in node.outputs)
        graph.value_info.extend(
            ir.serde.serialize_value(value) for value in made if value.type and value.shape
        )
        graph.initializer.extend(
            ir.serde.serialize_tensor(value.const_value)
            for value in self._constants.values()
            if value.const_value is not None
        )
        if self.gpu:
            fill_sizes(graph, _inferred)
        inferred = _inferred(graph)
        found: Shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        for value in (*inferred.input, *inferred.value_info):
            if value.type.tensor_type.HasField("shape"):
                dims = value.type.tensor_type.shape.dim
                found[value.name] = tuple(
                    dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
                    for dim in dims
                )
        return found

    def op(
        self, op_type: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any
    ) -> ir.Value:
        """Append a node with one output and return that output."""
        return self.ops(op_type, 1, *inputs, domain=domain, **attributes)[0]

    def ops(
        self,
        op_type: str,
        num_outputs: int,
        *inputs: ir.Value | None,
        domain: str = "",
        **attributes: Any,
    ) -> tuple[ir.Value, ...]:
        """Append a node with several outputs."""
        if op_type in self._expand:
            return self._expand[op_type](self, inputs, attributes)
        self._count += 1
        node = ir.node(
            op_type,
            inputs,
            attributes or None,
            domain=domain,
            num_outputs=num_outputs,
            name=f"{op_type}_{self._count}",
        )
        for index, value in enumerate(node.outputs):
            value.name = f"{op_type}_{self._count}_{index}"
        self._nodes.append(node)
        return tuple(node.outputs)

    def body(
        self, name: str, inputs: Sequence[ir.Value], make: Callable[[], Sequence[ir.Value]]
    ) -> ir.Graph:
        """Build a graph for an attribute of a node; it may read values of the graph around it.

        Args:
            name: name of the graph.
            inputs: its inputs, which the node passes.
            make: appends its nodes and returns its outputs.
        """
        around, self._nodes = self._nodes, []
        try:
            outputs = make()
            return ir.Graph(inputs, outputs, nodes=self._nodes, name=name)
        finally:
            self._nodes = around

    def constant(self, value: npt.NDArray[Any] | np.generic) -> ir.Value:
        """Return a small constant stored in the graph; equal constants are one."""
        array = np.asarray(value)  # np.ascontiguousarray would turn a scalar into a vector
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            tensor = ir.tensor(array, name=name)
            self._constants[key] = ir.Value(
                name=name,
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(array.shape),
                const_value=tensor,
            )
        return self._constants[key]

    def ints(self, *values: int) -> ir.Value:
        """Return a constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> ir.Value:
        """Return a constant float32 scalar."""
        return self.constant(np.float32(value))

    def weight(
        self,
        planned: PlannedTensor,
        rows: tuple[int, int] | None = None,
        shape: Sequence[int] | None = None,
    ) -> ir.Value:
        """Return a tensor of the weights file, or rows start..stop of its first axis, as `shape`.

        It is an input of the graph: the runtime feeds views of the mapped file, and blocks that
        differ only in their weights share one graph.
        """
        self.planned.setdefault(planned.name, planned)
        start, stop = rows or (0, planned.shape[0] if planned.shape else 1)
        own = tuple(shape or ((stop - start, *planned.shape[1:]) if planned.shape else ()))
        name = self.local(planned.name)
        if rows is not None or own != planned.shape:
            name = f"{name}[{start}:{stop}] as {list(own)}"
        if name not in self._weights:
            self._weights[name] = self.input(name, _DTYPES[planned.dtype], own)
            self.weights.append(Binding(name, planned.name, start))
        return self._weights[name]

    def trainable(self, name: str, shape: Sequence[int | str]) -> ir.Value:
        """Return a float32 tensor that is tuned: an input of the graph."""
        self.trainables.append(Binding(self.local(name), name))
        return self.input(self.local(name), ir.DataType.FLOAT, shape)

    def local(self, name: str) -> str:
        """Return the name of a parameter inside the module of the graph."""
        return name.removeprefix(self._module)

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """Declare a graph input; a str is a dynamic dimension."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self._inputs.append(value)
        return value

    def output(
        self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]
    ) -> None:
        """Declare `value` a graph output under `name`."""
        if value.producer() is None or value in self._outputs:
            value = self.op("Identity", value)
        value.name = name
        value.type = ir.TensorType(dtype)
        value.shape = ir.Shape(shape)
        self._outputs.append(value)

    def withdraw_outputs(self) -> list[ir.Value]:
        """Make all outputs inner values again, and return them."""
        values, self._outputs = self._outputs, []
        return values

    def info(self, file: str) -> GraphInfo:
        """Return the manifest's entry of this graph."""
        return GraphInfo(
            file=file,
            inputs=tuple(_info(value) for value in self._inputs),
            outputs=tuple(_info(value) for value in self._outputs),
            trainables=tuple(self.trainables),
            weights=tuple(self.weights),
            routed=tuple(self.routed),
        )

    def serialize(self) -> bytes:
        """Return the content of the ONNX file; equal graphs have equal bytes."""
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=list(self._constants.values()),
            opset_imports=OPSETS,
            name=self.name,
        )
        model = ir.Model(graph, ir_version=IR_VERSION, producer_name="edgezo")
        passes.RemoveUnusedNodesPass()(model)
        content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
        return content


def _inferred(graph: onnx.GraphProto) -> onnx.GraphProto:
    opsets = [onnx.helper.make_opsetid(domain, number) for domain, number in OPSETS.items()]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    return onnx.shape_inference.infer_shapes(model, data_prop=True).graph


def _number_dimensions(graph: onnx.GraphProto) -> None:
    """Give every dynamic dimension of the inputs a number; those that add up differ, too."""
    numbers: dict[str, int] = {}
    for value in graph.input:
        for dim in value.type.tensor_type.shape.dim:
            name = dim.dim_param
            if name.startswith(COPIES):
                dim.dim_value = 1
            elif name:
                dim.dim_value = numbers.setdefault(name, 1009 + 2 ** len(numbers))


def _show_products(graph: onnx.GraphProto) -> None:
    """Put products of plain matrices in the place of those in groups, which have no inference."""
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            sizes = {attribute.name: attribute.i for attribute in node.attribute}
            name = f"{node.name}.matrix"
            shape = sizes["K"], sizes["N"]
            graph.input.append(onnx.helper.make_tensor_value_info(name, _FLOAT, shape))
            shown = onnx.helper.make_node("MatMul", [node.input[0], name], node.output)
            node.CopyFrom(shown)


def _info(value: ir.Value) -> TensorInfo:
    dtype = value.dtype
    if dtype is None or value.shape is None or dtype not in _NAMES:
        raise TypeError(f"tensor {value.name!r}: dtype {dtype} is not part of the graph contract")
    shape = tuple(dim if isinstance(dim, int) else str(dim) for dim in value.shape)
    return TensorInfo(str(value.name), _NAMES[dtype], shape)
