"""Vector-Jacobian products of operators that work element by element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from edgezo_export.derivatives.adjoint import FLOAT, Adjoint, Rule
from edgezo_export.errors import UnsupportedModelError


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
    """Make the rule of an element-wise operator from f'(x), given x and f(x)."""

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


def _log_slope(a: Adjoint, x: ir.Value, _y: ir.Value) -> ir.Value:
    return a.op("Reciprocal", x)


def _sqrt_slope(a: Adjoint, _x: ir.Value, y: ir.Value) -> ir.Value:
    return a.op("Div", a.draft.scalar(0.5), y)


def _reciprocal_slope(a: Adjoint, _x: ir.Value, y: ir.Value) -> ir.Value:
    return a.op("Neg", a.op("Mul", y, y))


def _relu_slope(a: Adjoint, x: ir.Value, _y: ir.Value) -> ir.Value:
    return a.op("Cast", a.op("Greater", x, a.draft.scalar(0.0)), to=FLOAT)


def _abs_slope(a: Adjoint, x: ir.Value, _y: ir.Value) -> ir.Value:
    return a.op("Sign", x)


def _clip_slope(a: Adjoint, x: ir.Value, y: ir.Value) -> ir.Value:
    return a.op("Cast", a.op("Equal", x, y), to=FLOAT)


def _neg(a: Adjoint) -> Sequence[ir.Value | None]:
    return [a.op("Neg", a.grad)]


def _same(a: Adjoint) -> Sequence[ir.Value | None]:
    return [a.grad]


def _softplus_slope(a: Adjoint, x: ir.Value, _y: ir.Value) -> ir.Value:
    return a.op("Sigmoid", x)


def _extreme(a: Adjoint) -> Sequence[ir.Value | None]:
    """The largest or smallest of numbers: the gradient goes to those that are the result."""
    y = a.node.outputs[0]
    return [
        a.reduced(
            a.op("Mul", a.grad, a.op("Cast", a.op("Equal", a.input(index), y), to=FLOAT)), index
        )
        if wants
        else None
        for index, wants in enumerate(a.wanted)
    ]


def _where(a: Adjoint) -> Sequence[ir.Value | None]:
    zero = a.draft.scalar(0.0)
    left = a.op("Where", a.input(0), a.grad, zero) if a.wanted[1] else None
    right = a.op("Where", a.input(0), zero, a.grad) if a.wanted[2] else None
    return [None, left and a.reduced(left, 1), right and a.reduced(right, 2)]


RULES: dict[str, Rule] = {
    "Abs": _slope(_abs_slope),
    "Add": _add,
    "Cast": _same,  # all gradients are float32
    "CastLike": _same,
    "Clip": _slope(_clip_slope),
    "Div": _div,
    "Erf": _slope(_erf_slope),
    "Exp": _slope(_exp_slope),
    "Identity": _same,
    "Log": _slope(_log_slope),
    "Max": _extreme,
    "Min": _extreme,
    "Mul": _mul,
    "Neg": _neg,
    "Pow": _pow,
    "Reciprocal": _slope(_reciprocal_slope),
    "Relu": _slope(_relu_slope),
    "Sigmoid": _slope(_sigmoid_slope),
    "Softplus": _slope(_softplus_slope),
    "Sqrt": _slope(_sqrt_slope),
    "Sub": _sub,
    "Tanh": _slope(_tanh_slope),
    "Where": _where,
}
"""Operator -> its vector-Jacobian product."""
