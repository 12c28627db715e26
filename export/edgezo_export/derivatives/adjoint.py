"""A node on the way back: the gradients of its outputs, and the graph that rules append to.

y = f(x),  g_y = dL/dy   ->   g_x = g_y^T df/dx
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder, Shapes

FLOAT = int(ir.DataType.FLOAT)
_KEEPS_NUMBERS = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(slots=True)
class Adjoint:
    """A node whose outputs have gradients.

    Attributes:
        draft: the graph, which the rules append to.
        node: the node.
        grads: gradient of every output, None if it has none.
        wanted: whether the gradient of each input is wanted.
        shapes: the known shapes of values.
    """

    draft: GraphBuilder
    node: ir.Node
    grads: Sequence[ir.Value | None]
    wanted: Sequence[bool]
    shapes: Shapes

    @property
    def grad(self) -> ir.Value:
        """The gradient of the only output."""
        if len(self.grads) != 1 or self.grads[0] is None:
            raise UnsupportedModelError(f"the gradient of several outputs of {self.node.op_type}")
        return self.grads[0]

    def input(self, index: int) -> ir.Value:
        """Return an input that must be given."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        if value is None:
            raise UnsupportedModelError(f"{self.node.op_type} without its input {index}")
        return value

    def attribute(self, name: str, default: Any) -> Any:
        """Return the value of an attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Append a node."""
        return self.draft.op(op_type, *inputs, **attributes)

    def constant(self, index: int) -> list[int]:
        """Return the values of an int64 input, which must be known."""
        value: ir.Value | None = self.input(index)
        while value is not None and value.const_value is None:
            maker = value.producer()
            kept = maker is not None and maker.op_type in _KEEPS_NUMBERS
            value = maker.inputs[0] if maker is not None and kept else None
        if value is None or value.const_value is None:
            raise UnsupportedModelError(f"the gradient of {self.node.op_type} by numbers not fixed")
        return [int(number) for number in value.const_value.numpy().ravel()]

    def zeros(self, shape: ir.Value) -> ir.Value:
        """Append float32 zeros of a shape, on a GPU where there is one."""
        if self.draft.gpu:
            return self.op("Expand", self.draft.scalar(0.0), shape)
        return self.op("ConstantOfShape", shape, value=ir.tensor(np.zeros(1, np.float32)))

    def reduced(self, grad: ir.Value, index: int) -> ir.Value:
        """Sum a gradient over the axes along which an input was repeated."""
        value, result = self.input(index), self.node.outputs[0]
        if self._same_shape(value, result):
            return grad
        if self.draft.gpu:
            return self._reduced_by_known_axes(grad, value, result)
        rank = len(self.shapes.get(str(value.name), ())) or None
        wide = len(self.shapes.get(str(result.name), ())) or None
        shape = self.op("Shape", value)
        padded = shape
        if rank is None or rank != wide:
            ranks = self.op("Sub", self.op("Size", self.op("Shape", grad)), self.op("Size", shape))
            missing = self.op("Unsqueeze", ranks, self.draft.ints(0))
            one = ir.tensor(np.array([1], np.int64))
            ones = self.op("ConstantOfShape", missing, value=one)
            padded = self.op("Concat", ones, shape, axis=0)
        once = self.op("Equal", padded, self.draft.constant(np.int64(1)))
        axes = self.op("Squeeze", self.op("NonZero", once), self.draft.ints(0))
        # Where the gradient has size 1 as well, the sum of one number changes nothing.
        summed = self.op("ReduceSum", grad, axes, keepdims=1, noop_with_empty_axes=1)
        return self.op("Reshape", summed, shape)

    def _reduced_by_known_axes(self, grad: ir.Value, value: ir.Value, result: ir.Value) -> ir.Value:
        """Append the sum over axes that are known now: a GPU cannot choose them by shapes.

        Raises:
            UnsupportedModelError: the shape of a value is not known.
        """
        own, wide = (self.shapes.get(str(v.name)) for v in (value, result))
        missing = len(wide or ()) - len(own or ())
        axes: list[int] = []
        padded = (1,) * missing + own if own is not None else ()
        if own is None or wide is None or len(padded) != len(wide):
            raise UnsupportedModelError(f"the gradient of {self.node.op_type} of unknown shape")
        for axis, (few, all_) in enumerate(zip(padded, wide, strict=True)):
            if few == 1 and all_ != 1:
                axes.append(axis)
            elif self._is_alone(value, axis - len(wide)):
                continue
            elif few is None or few != all_:  # equal names are the same number
                raise UnsupportedModelError(f"the gradient of {self.node.op_type} of unknown shape")
        summed = grad
        if axes:
            summed = self.op("ReduceSum", grad, self.draft.ints(*axes), keepdims=1)
        if not missing:
            return summed
        return self.op("Reshape", summed, self.op("Shape", value))

    def _is_alone(self, value: ir.Value, axis: int) -> bool:
        """Has no other input an axis of more than one number there? Then none was repeated to it.

        Args:
            value: an input.
            axis: counted from the last one, -1.
        """
        if self.node.op_type == "Expand":  # its other input is a shape
            return False
        others = [v for v in self.node.inputs if v is not None and v is not value]
        shapes = [self.shapes.get(str(v.name)) for v in others]
        return all(
            shape is not None and (len(shape) < -axis or shape[axis] == 1) for shape in shapes
        )

    def _same_shape(self, value: ir.Value, result: ir.Value) -> bool:
        own, all_ = (self.shapes.get(str(v.name)) for v in (value, result))
        if own is not None and own == all_ and None not in own:
            return True
        others = [v for v in self.node.inputs if v is not None and v is not value]
        return self.node.op_type != "Expand" and all(
            v.const_value is not None and v.const_value.size == 1 for v in others
        )


Rule = Callable[[Adjoint], Sequence[ir.Value | None]]
"""Returns the gradient of every input, given the gradients of the outputs."""
