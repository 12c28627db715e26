"""Vector-Jacobian products of sums, means and softmax."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgezo_export.derivatives.adjoint import FLOAT, Adjoint, Rule


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
    few, all_ = (a.op("Cast", size, to=FLOAT) for size in sizes)
    return [_expanded(a, a.op("Mul", a.grad, a.op("Div", few, all_)))]


def _cum_sum(a: Adjoint) -> Sequence[ir.Value | None]:
    """The sum of the gradients of all later numbers, each its own included."""
    turned = 1 - int(a.attribute("reverse", 0))
    exclusive = int(a.attribute("exclusive", 0))
    return [a.op("CumSum", a.grad, a.input(1), reverse=turned, exclusive=exclusive), None]


def _expanded(a: Adjoint, grad: ir.Value | None = None) -> ir.Value:
    """Repeat a gradient along the axes that were reduced."""
    grad = a.grad if grad is None else grad
    if not int(a.attribute("keepdims", 1)):
        grad = a.op("Unsqueeze", grad, a.input(1))
    return a.op("Expand", grad, a.op("Shape", a.input(0)))


RULES: dict[str, Rule] = {
    "CumSum": _cum_sum,
    "ReduceMean": _reduce_mean,
    "ReduceSum": _reduce_sum,
    "Softmax": _softmax,
}
"""Operator -> its vector-Jacobian product."""
