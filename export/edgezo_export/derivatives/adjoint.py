"""Reverse-mode differentiation of a graph: one vector-Jacobian product an operator.

    y = f(x),  g_y = dL/dy   ->   g_x = g_y^T df/dx

The nodes are gone through backwards; each adds what it owes to the gradients of its inputs. A value
that no target influences has no gradient and costs nothing.

References:
    Baydin et al. 2018, Automatic differentiation in machine learning: a survey, arXiv:1502.05767,
    section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import MICROSOFT, GraphBuilder, Shapes

_FLOAT = int(ir.DataType.FLOAT)
_CONSTANT = frozenset({"And", "Equal", "Greater", "GreaterOrEqual", "Less", "Range", "Shape"})
"""Operators whose result does not change with a small change of their inputs."""
_KEEPS_NUMBERS = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(slots=True)
class Adjoint:
    """A node whose outputs have gradients.

    Attributes:
        draft: the graph, which the rules append to.
        node: the node.
        grads: gradient of every output, None where there is none.
        wanted: whether each input wants a gradient.
        shapes: what is known of the shapes of values.
    """

    draft: GraphBuilder
    node: ir.Node
    grads: Sequence[ir.Value | None]
    wanted: Sequence[bool]
    shapes: Shapes

    @property
    def grad(self) -> ir.Value:
        """Gradient of the only output."""
        if len(self.grads) != 1 or self.grads[0] is None:
            raise UnsupportedModelError(f"the gradient of several outputs of {self.node.op_type}")
        return self.grads[0]

    def input(self, index: int) -> ir.Value:
        """An input that must be there."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        if value is None:
            raise UnsupportedModelError(f"{self.node.op_type} without its input {index}")
        return value

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Append a node."""
        return self.draft.op(op_type, *inputs, **attributes)

    def constant(self, index: int) -> list[int]:
        """An int64 input whose values are known."""
        value: ir.Value | None = self.input(index)
        while value is not None and value.const_value is None:
            maker = value.producer()
            kept = maker is not None and maker.op_type in _KEEPS_NUMBERS
            value = maker.inputs[0] if maker is not None and kept else None
        if value is None or value.const_value is None:
            raise UnsupportedModelError(f"the gradient of {self.node.op_type} by numbers not fixed")
        return [int(number) for number in value.const_value.numpy().ravel()]

    def reduced(self, grad: ir.Value, index: int) -> ir.Value:
        """Sum a gradient over the axes along which an input was repeated."""
        value, result = self.input(index), self.node.outputs[0]
        if self._same_shape(value, result):
            return grad
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
        # Where the gradient has 1 there as well, the sum of one number changes nothing.
        summed = self.op("ReduceSum", grad, axes, keepdims=1, noop_with_empty_axes=1)
        return self.op("Reshape", summed, shape)

    def _same_shape(self, value: ir.Value, result: ir.Value) -> bool:
        own, all_ = (self.shapes.get(str(v.name)) for v in (value, result))
        if own is not None and own == all_ and None not in own:
            return True
        others = [v for v in self.node.inputs if v is not None and v is not value]
        return self.node.op_type != "Expand" and all(
            v.const_value is not None and v.const_value.size == 1 for v in others
        )


Rule = Callable[[Adjoint], Sequence[ir.Value | None]]
"""Gives the gradient of every input from that of the outputs."""


def pull_back(
    draft: GraphBuilder,
    seeds: Mapping[ir.Value, ir.Value],
    targets: Sequence[ir.Value],
) -> list[ir.Value]:
    """Append the nodes that carry gradients back.

    Args:
        draft: the graph.
        seeds: value -> its gradient.
        targets: values whose gradients are wanted; they may depend on each other.
    Returns:
        The gradients of the targets.
    Raises:
        UnsupportedModelError: an operator has no rule, or a target no influence.
    """
    nodes, shapes = draft.nodes, draft.shapes()
    moving = set(targets)
    for node in nodes:
        if node.op_type not in _CONSTANT and any(value in moving for value in node.inputs):
            moving.update(node.outputs)
    grads: dict[ir.Value, ir.Value] = dict(seeds)
    for node in reversed(nodes):
        outputs = [grads.get(value) for value in node.outputs]
        wanted = [value in moving for value in node.inputs]
        if not any(wanted) or all(grad is None for grad in outputs):
            continue
        if node.op_type in _CONSTANT:
            continue
        rule = RULES.get(node.op_type)
        if rule is None:
            raise UnsupportedModelError(f"operator {node.op_type} has no gradient")
        owed = rule(Adjoint(draft, node, outputs, wanted, shapes))
        for value, wants, grad in zip(node.inputs, wanted, owed, strict=False):
            if value is not None and wants and grad is not None:
                known = grads.get(value)
                grads[value] = grad if known is None else draft.op("Add", known, grad)
    lost = [value.name for value in targets if value not in grads]
    if lost:
        raise UnsupportedModelError(f"the result does not depend on {lost[0]!r}")
    return [grads[value] for value in targets]


# --- element by element ---


def _add(a: Adjoint) -> Sequence[ir.Value | None]:
    return [a.reduced(a.grad, index) if wants else None for index, wants in enumerate(a.wanted)]


def _sub(a: Adjoint) -> Sequence[ir.Value | None]:
    left = a.reduced(a.grad, 0) if a.wanted[0] else None
    return [left, a.reduced(a.op("Neg", a.grad), 1) if a.wanted[1] else None]


def _mul(a: Adjoint) -> Sequence[ir.Value | None]:
    return [
        a.reduced(a.op("Mul", a.grad, a.input(1 - index)), index) if wants else None
        for index, wants in enumerate(a.wanted)
    ]


def _div(a: Adjoint) -> Sequence[ir.Value | None]:
    share = a.op("Div", a.grad, a.input(1))
    top = a.reduced(share, 0) if a.wanted[0] else None
    if not a.wanted[1]:
        return [top, None]
    bottom = a.op("Neg", a.op("Mul", share, a.node.outputs[0]))
    return [top, a.reduced(bottom, 1)]


def _pow(a: Adjoint) -> Sequence[ir.Value | None]:
    if a.wanted[1]:
        raise UnsupportedModelError("the gradient of a power by its exponent")
    x, exponent = a.input(0), a.input(1)
    lower = a.op("Pow", x, a.op("Sub", exponent, a.draft.scalar(1.0)))
    slope = a.op("Mul", lower, exponent)
    return [a.reduced(a.op("Mul", a.grad, slope), 0)]


def _slope(make: Callable[[Adjoint, ir.Value, ir.Value], ir.Value]) -> Rule:
    """The rule of an element-wise operator from f'(x), given x and f(x)."""

    def rule(a: Adjoint) -> Sequence[ir.Value | None]:
        return [a.op("Mul", a.grad, make(a, a.input(0), a.node.outputs[0]))]

    return rule


def _sigmoid_slope(a: Adjoint, _x: ir.Value, y: ir.Value) -> ir.Value:
    return a.op("Mul", y, a.op("Sub", a.draft.scalar(1.0), y))


def _tanh_slope(a: Adjoint, _x: ir.Value, y: ir.Value) -> ir.Value:
    return a.op("Sub", a.draft.scalar(1.0), a.op("Mul", y, y))


def _erf_slope(a: Adjoint, x: ir.Value, _y: ir.Value) -> ir.Value:
    bell = a.op("Exp", a.op("Neg", a.op("Mul", x, x)))
    return a.op("Mul", bell, a.draft.scalar(2 / math.sqrt(math.pi)))


def _exp_slope(_a: Adjoint, _x: ir.Value, y: ir.Value) -> ir.Value:
    return y


def _sqrt_slope(a: Adjoint, _x: ir.Value, y: ir.Value) -> ir.Value:
    return a.op("Div", a.draft.scalar(0.5), y)


def _reciprocal_slope(a: Adjoint, _x: ir.Value, y: ir.Value) -> ir.Value:
    return a.op("Neg", a.op("Mul", y, y))


def _relu_slope(a: Adjoint, x: ir.Value, _y: ir.Value) -> ir.Value:
    return a.op("Cast", a.op("Greater", x, a.draft.scalar(0.0)), to=_FLOAT)


def _abs_slope(a: Adjoint, x: ir.Value, _y: ir.Value) -> ir.Value:
    return a.op("Sign", x)


def _neg(a: Adjoint) -> Sequence[ir.Value | None]:
    return [a.op("Neg", a.grad)]


def _same(a: Adjoint) -> Sequence[ir.Value | None]:
    return [a.grad]


def _where(a: Adjoint) -> Sequence[ir.Value | None]:
    zero = a.draft.scalar(0.0)
    left = a.op("Where", a.input(0), a.grad, zero) if a.wanted[1] else None
    right = a.op("Where", a.input(0), zero, a.grad) if a.wanted[2] else None
    return [None, left and a.reduced(left, 1), right and a.reduced(right, 2)]


# --- sums ---


def _matmul(a: Adjoint) -> Sequence[ir.Value | None]:
    """C = A B: g_A = g_C B^T, g_B = A^T g_C, without a transposed copy."""
    left, right = a.input(0), a.input(1)
    owed: list[ir.Value | None] = [None, None]
    if a.wanted[0]:
        other = _afresh(a.draft, right)
        product = a.op("FusedMatMul", a.grad, other, domain=MICROSOFT, transB=1)
        owed[0] = _unbatched(a, product, 0)
    if a.wanted[1]:
        product = a.op("FusedMatMul", left, a.grad, domain=MICROSOFT, transA=1)
        owed[1] = _unbatched(a, product, 1)
    return owed


def _unbatched(a: Adjoint, grad: ir.Value, index: int) -> ir.Value:
    """Sum over the leading axes along which a factor was repeated."""
    ranks = [len(a.shapes.get(str(a.input(i).name), ())) for i in (0, 1)]
    own, other = ranks[index], ranks[1 - index]
    if not own or not other:
        raise UnsupportedModelError("the gradient of a product of matrices of unknown rank")
    if own >= other:
        left, right = (a.shapes[str(a.input(i).name)][-own:-2] for i in (0, 1))
        if any(1 in pair and pair != (1, 1) for pair in zip(left, right, strict=False)):
            raise UnsupportedModelError("the gradient of a product that repeats matrices")
        return grad
    axes = a.draft.ints(*range(other - own))
    return a.op("ReduceSum", grad, axes, keepdims=0)


def _afresh(draft: GraphBuilder, value: ir.Value) -> ir.Value:
    """A weight in float32 made once more: kept from its first use it would stay in memory."""
    producer = value.producer()
    if producer is None or producer.op_type not in ("Cast", "DequantizeLinear"):
        return value
    attributes = {name: attribute.value for name, attribute in producer.attributes.items()}
    return draft.op(producer.op_type, *producer.inputs, **attributes)


def _gemm(a: Adjoint) -> Sequence[ir.Value | None]:
    """C = A B^T, which is all that a head needs."""
    form = {name: a.attribute(name, default) for name, default in _GEMM.items()}
    if form != _GEMM | {"transB": 1} or a.wanted[1] or any(a.wanted[2:]):
        raise UnsupportedModelError("the gradient of a Gemm of this form")
    return [a.op("MatMul", a.grad, _afresh(a.draft, a.input(1)))]


_GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}


def _softmax(a: Adjoint) -> Sequence[ir.Value | None]:
    """y (g - sum(g y))."""
    y, axis = a.node.outputs[0], int(a.attribute("axis", -1))
    weighted = a.op("Mul", a.grad, y)
    total = a.op("ReduceSum", weighted, a.draft.ints(axis), keepdims=1)
    return [a.op("Sub", weighted, a.op("Mul", y, total))]


def _reduce_sum(a: Adjoint) -> Sequence[ir.Value | None]:
    return [_expanded(a)]


def _reduce_mean(a: Adjoint) -> Sequence[ir.Value | None]:
    sizes = [a.op("Size", value) for value in (a.node.outputs[0], a.input(0))]
    few, all_ = (a.op("Cast", size, to=_FLOAT) for size in sizes)
    return [_expanded(a, a.op("Mul", a.grad, a.op("Div", few, all_)))]


def _expanded(a: Adjoint, grad: ir.Value | None = None) -> ir.Value:
    """Repeat a gradient along the axes that were summed."""
    grad = a.grad if grad is None else grad
    if not int(a.attribute("keepdims", 1)):
        grad = a.op("Unsqueeze", grad, a.input(1))
    return a.op("Expand", grad, a.op("Shape", a.input(0)))


# --- moving numbers ---


def _reshape(a: Adjoint) -> Sequence[ir.Value | None]:
    return [a.op("Reshape", a.grad, a.op("Shape", a.input(0)))]


def _transpose(a: Adjoint) -> Sequence[ir.Value | None]:
    perm = [int(axis) for axis in a.attribute("perm", ())]
    if not perm:
        return [a.op("Transpose", a.grad)]
    return [a.op("Transpose", a.grad, perm=[perm.index(axis) for axis in range(len(perm))])]


def _expand(a: Adjoint) -> Sequence[ir.Value | None]:
    return [a.reduced(a.grad, 0)]


def _concat(a: Adjoint) -> Sequence[ir.Value | None]:
    axis = int(a.attribute("axis", 0))
    place = a.draft.ints(axis)
    sizes = [a.op("Gather", a.op("Shape", value), place) for value in a.node.inputs]
    lengths = a.op("Concat", *sizes, axis=0)
    return a.draft.ops("Split", len(sizes), a.grad, lengths, axis=axis)


def _split(a: Adjoint) -> Sequence[ir.Value | None]:
    zero = ir.tensor(np.zeros(1, np.float32))
    parts = [
        a.op("ConstantOfShape", a.op("Shape", value), value=zero) if grad is None else grad
        for value, grad in zip(a.node.outputs, a.grads, strict=True)
    ]
    return [a.op("Concat", *parts, axis=int(a.attribute("axis", 0)))]


def _slice(a: Adjoint) -> Sequence[ir.Value | None]:
    """Zeros where a part was left out."""
    starts = a.constant(1)
    axes = a.constant(3) if len(a.node.inputs) > 3 else list(range(len(starts)))
    steps = a.constant(4) if len(a.node.inputs) > 4 else [1] * len(starts)
    if steps != [1] * len(starts):
        return [_slice_in_steps(a, starts, axes, steps)]
    before: list[ir.Value] = []
    after: list[ir.Value] = []
    for start, axis in zip(starts, axes, strict=True):
        place = a.draft.ints(axis)
        whole = a.op("Gather", a.op("Shape", a.input(0)), place)
        part = a.op("Gather", a.op("Shape", a.grad), place)
        first = a.draft.ints(start)
        before.append(a.op("Add", whole, first) if start < 0 else first)
        after.append(a.op("Sub", a.op("Sub", whole, before[-1]), part))
    pads = a.op("Concat", *before, *after, axis=0)
    return [a.op("Pad", a.grad, pads, None, a.draft.ints(*axes))]


def _slice_in_steps(
    a: Adjoint, starts: Sequence[int], axes: Sequence[int], steps: Sequence[int]
) -> ir.Value:
    """Every n-th number of one axis: zeros between them."""
    shape = a.shapes.get(str(a.input(0).name), ())
    start, axis, step = starts[0], axes[0], steps[0]
    size = shape[axis] if -len(shape) <= axis < len(shape) else None
    if len(starts) != 1 or not isinstance(size, int) or not 0 <= start < step or size % step:
        raise UnsupportedModelError("the gradient of a Slice in steps of this form")
    place = a.draft.ints(axis % len(shape) + 1)
    apart = a.op("Unsqueeze", a.grad, place)
    filled = a.op("Pad", apart, a.draft.ints(start, step - 1 - start), None, place)
    return a.op("Reshape", filled, a.op("Shape", a.input(0)))


def _pad(a: Adjoint) -> Sequence[ir.Value | None]:
    if len(a.node.inputs) > 3 or a.attribute("mode", "constant") != "constant":
        raise UnsupportedModelError("the gradient of a Pad of this form")
    pads = a.constant(1)
    before = a.draft.ints(*pads[: len(pads) // 2])
    return [a.op("Slice", a.grad, before, a.op("Add", before, a.op("Shape", a.input(0))))]


def _gather_nd(a: Adjoint) -> Sequence[ir.Value | None]:
    batch, index = int(a.attribute("batch_dims", 0)), a.input(1)
    if batch > 1:
        raise UnsupportedModelError("the gradient of a GatherND of several batch dimensions")
    if batch:  # ScatterND has none: the place in the batch goes in front of each index
        shape = a.op("Shape", index)
        ranks = a.shapes.get(str(index.name), ())
        if len(ranks) < 2:
            raise UnsupportedModelError("the gradient of a GatherND by an index of unknown rank")
        zero, one = (a.draft.constant(np.int64(number)) for number in (0, 1))
        first = a.op("Squeeze", a.op("Gather", shape, a.draft.ints(0)))
        count = a.op("Range", zero, first, one)
        column = a.op("Reshape", count, a.draft.ints(-1, *[1] * (len(ranks) - 1)))
        lead = a.op("Slice", shape, a.draft.ints(0), a.draft.ints(len(ranks) - 1))
        wide = a.op("Concat", lead, a.draft.ints(1), axis=0)
        index = a.op("Concat", a.op("Expand", column, wide), index, axis=-1)
    return [_scattered(a, index)]


def _gather(a: Adjoint) -> Sequence[ir.Value | None]:
    """Rows of the first axis."""
    if int(a.attribute("axis", 0)):
        raise UnsupportedModelError("the gradient of a Gather of another axis than the first")
    return [_scattered(a, a.op("Unsqueeze", a.input(1), a.draft.ints(-1)))]


def _scattered(a: Adjoint, index: ir.Value) -> ir.Value:
    """The gradient added up where an index points."""
    zero = ir.tensor(np.zeros(1, np.float32))
    nothing = a.op("ConstantOfShape", a.op("Shape", a.input(0)), value=zero)
    return a.op("ScatterND", nothing, index, a.grad, reduction="add")


RULES: dict[str, Rule] = {
    "Abs": _slope(_abs_slope),
    "Add": _add,
    "Cast": _same,  # float32 is all there is
    "Concat": _concat,
    "Div": _div,
    "Erf": _slope(_erf_slope),
    "Exp": _slope(_exp_slope),
    "Expand": _expand,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "Identity": _same,
    "MatMul": _matmul,
    "Mul": _mul,
    "Neg": _neg,
    "Pad": _pad,
    "Pow": _pow,
    "Reciprocal": _slope(_reciprocal_slope),
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Relu": _slope(_relu_slope),
    "Reshape": _reshape,
    "Sigmoid": _slope(_sigmoid_slope),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _slope(_sqrt_slope),
    "Squeeze": _reshape,
    "Sub": _sub,
    "Tanh": _slope(_tanh_slope),
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
    "Where": _where,
}
"""Operator -> its vector-Jacobian product."""
