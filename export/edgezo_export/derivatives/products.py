"""Vector-Jacobian products of matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgezo_export.derivatives.adjoint import Adjoint, Rule
from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import MICROSOFT, GraphBuilder

GPU_TILE = 1 << 24
"""Numbers of a matrix in groups that are float32 at once, 64 MiB: few kernels for most matrices."""

_GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
"""The attributes of a Gemm and their defaults."""


def _matmul(a: Adjoint) -> Sequence[ir.Value | None]:
    """C = A B: g_A = g_C B^T, g_B = A^T g_C, without a transposed copy where there need be none."""
    left, right = a.input(0), a.input(1)
    owed: list[ir.Value | None] = [None, None]
    if a.wanted[0]:
        other = _recomputed(a.draft, right)
        owed[0] = _unbatched(a, _times_transposed(a, a.grad, other, right), 0)
    if a.wanted[1]:
        owed[1] = _unbatched(a, _transposed_times(a, left, a.grad), 1)
    return owed


def _times_transposed(a: Adjoint, grad: ir.Value, other: ir.Value, known: ir.Value) -> ir.Value:
    """Append g B^T, B as `other`, whose shape is that of `known`."""
    if not a.draft.gpu:
        return a.op("FusedMatMul", grad, other, domain=MICROSOFT, transB=1)
    shape = a.shapes.get(str(known.name), ())
    if len(shape) != 2:
        return a.op("MatMul", grad, _turned(a, other, len(shape)))
    rows = a.op("Reshape", grad, a.draft.ints(-1, int(shape[1] or 0)))
    product = a.op("Gemm", rows, other, transB=1)
    lead = a.op("Shape", grad, start=0, end=-1)
    wide = a.op("Concat", lead, a.draft.ints(int(shape[0] or 0)), axis=0)
    return a.op("Reshape", product, wide)


def _transposed_times(a: Adjoint, left: ir.Value, grad: ir.Value) -> ir.Value:
    """Append A^T g."""
    if not a.draft.gpu:
        return a.op("FusedMatMul", left, grad, domain=MICROSOFT, transA=1)
    return a.op("MatMul", _turned(a, left, len(a.shapes.get(str(left.name), ()))), grad)


def _turned(a: Adjoint, value: ir.Value, rank: int) -> ir.Value:
    """Append a value with its last two axes exchanged.

    Raises:
        UnsupportedModelError: its rank is not known.
    """
    if rank < 2:
        raise UnsupportedModelError("the gradient of a product of matrices of unknown rank")
    return a.op("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])


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


def _matmul_n_bits(a: Adjoint) -> Sequence[ir.Value | None]:
    """y = x W^T, W (out, in) in groups of inputs: g_x = g_y W, W as float32 a tile at a time."""
    outputs, width = int(a.attribute("N", 0)), int(a.attribute("K", 0))
    bits, size = int(a.attribute("bits", 4)), int(a.attribute("block_size", 32))
    scales = _recomputed(a.draft, a.input(2))
    values = a.op("Reshape", a.input(1), a.draft.ints(outputs, width * bits // 8))
    most = max(1, GPU_TILE // width)
    total: ir.Value | None = None
    for start in range(0, outputs, most):
        stop = min(start + most, outputs)
        # No zero points: the operator takes the middle, which is that of the stored codes.
        tile = a.op(
            "GatherBlockQuantized",
            values,
            a.draft.constant(np.arange(start, stop)),
            scales,
            domain=MICROSOFT,
            bits=bits,
            block_size=size,
            gather_axis=0,
            quantize_axis=1,
        )
        part = a.grad
        if stop - start < outputs:
            last = a.draft.ints(-1)
            part = a.op("Slice", a.grad, a.draft.ints(start), a.draft.ints(stop), last)
        product = a.op("MatMul", part, tile)
        total = product if total is None else a.op("Add", total, product)
    return [total, *[None] * (len(a.node.inputs) - 1)]


RULES: dict[str, Rule] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulNBits": _matmul_n_bits,
}
"""Operator -> its vector-Jacobian product."""
