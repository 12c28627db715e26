"""Vector-Jacobian products of matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgezo_export.derivatives.adjoint import Adjoint, Rule
from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import MICROSOFT, GraphBuilder

_GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
"""The attributes of a Gemm and their defaults."""


def _matmul(a: Adjoint) -> Sequence[ir.Value | None]:
    """C = A B: g_A = g_C B^T, g_B = A^T g_C, without a transposed copy."""
    left, right = a.input(0), a.input(1)
    owed: list[ir.Value | None] = [None, None]
    if a.wanted[0]:
        other = _recomputed(a.draft, right)
        product = a.op("FusedMatMul", a.grad, other, domain=MICROSOFT, transB=1)
        owed[0] = _unbatched(a, product, 0)
    if a.wanted[1]:
        product = a.op("FusedMatMul", left, a.grad, domain=MICROSOFT, transA=1)
        owed[1] = _unbatched(a, product, 1)
    return owed


def _unbatched(a: Adjoint, grad: ir.Value, index: int) -> ir.Value:
    """Sum a gradient over the leading axes along which a factor was repeated."""
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


def _recomputed(draft: GraphBuilder, value: ir.Value) -> ir.Value:
    """Append a float32 weight again: reused from its first use it would stay in memory.

    So would what it is made of: all nodes before it, which read weights alone, are appended again.
    """
    if not _is_weight(draft, value):
        return value
    return _again(draft, value, {}) or value


def _is_weight(draft: GraphBuilder, value: ir.Value) -> bool:
    """Is a value made of a stored weight, of weights and constants alone?"""
    stored = {binding.input for binding in draft.weights}
    waiting, found, seen = [value], False, set[ir.Value]()
    while waiting:
        own = waiting.pop()
        producer = own.producer()
        if own in seen or own.const_value is not None:
            continue
        seen.add(own)
        if producer is None:
            if own.name not in stored:
                return False
            found = True
        elif producer.op_type in _OF_WEIGHTS:
            waiting += [each for each in producer.inputs if each is not None]
        else:
            return False
    return found and value.producer() is not None


_OF_WEIGHTS = frozenset(
    {
        "Add",
        "Cast",
        "Concat",
        "DequantizeLinear",
        "Expand",
        "Gather",
        "Mul",
        "QLinearAdd",
        "QLinearMul",
        "Reshape",
        "Shape",
        "Slice",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that make a float32 weight of a stored one."""


def _again(
    draft: GraphBuilder, value: ir.Value | None, made: dict[ir.Value, ir.Value]
) -> ir.Value | None:
    producer = None if value is None else value.producer()
    if value is None or producer is None or producer.op_type not in _OF_WEIGHTS:
        return value
    if value not in made:
        inputs = [_again(draft, own, made) for own in producer.inputs]
        attributes = {name: attribute.value for name, attribute in producer.attributes.items()}
        again = draft.op(producer.op_type, *inputs, domain=producer.domain, **attributes)
        again.type, again.shape = value.type, value.shape  # declared, or None as before
        made[value] = again
    return made[value]


def _gemm(a: Adjoint) -> Sequence[ir.Value | None]:
    """C = A B^T, the only form that a head needs."""
    form = {name: a.attribute(name, default) for name, default in _GEMM.items()}
    if form != _GEMM | {"transB": 1} or a.wanted[1] or any(a.wanted[2:]):
        raise UnsupportedModelError("the gradient of a Gemm of this form")
    return [a.op("MatMul", a.grad, _recomputed(a.draft, a.input(1)))]


RULES: dict[str, Rule] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
}
"""Operator -> its vector-Jacobian product."""
