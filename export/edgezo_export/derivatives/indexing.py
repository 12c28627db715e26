"""Vector-Jacobian products of operators that gather by an index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgezo_export.derivatives.adjoint import FLOAT, Adjoint, Rule
from edgezo_export.errors import UnsupportedModelError


def _gather_nd(a: Adjoint) -> Sequence[ir.Value | None]:
    batch, index = int(a.attribute("batch_dims", 0)), a.input(1)
    if batch > 1:
        raise UnsupportedModelError("the gradient of a GatherND of several batch dimensions")
    if batch:  # ScatterND has no batches: each index gets its place in the batch
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
    """Rows of the first axis, or one place or several of another axis."""
    axis = int(a.attribute("axis", 0))
    if axis and len(a.shapes.get(str(a.input(1).name), ())) == 1:
        return [_scattered_inside(a, axis)]
    if axis:
        return [_placed(a, axis)]
    return [_scattered(a, a.op("Unsqueeze", a.input(1), a.draft.ints(-1)))]


def _scattered_inside(a: Adjoint, axis: int) -> ir.Value:
    """Append the sum of the gradients at every place of an inner axis of a matrix."""
    shape = a.shapes.get(str(a.input(0).name), ())
    if len(shape) != 2 or axis not in (1, -1):
        raise UnsupportedModelError("the gradient of a Gather of several places of an inner axis")
    nothing = a.zeros(a.op("Shape", a.input(0)))
    places = a.op("Expand", a.input(1), a.op("Shape", a.grad))
    return a.op("ScatterElements", nothing, places, a.grad, axis=1, reduction="add")


def _placed(a: Adjoint, axis: int) -> ir.Value:
    """Append the gradient at one place of an axis, and zeros at the others."""
    shape, index = a.shapes.get(str(a.input(0).name), ()), a.input(1)
    if not -len(shape) <= axis < len(shape) or a.shapes.get(str(index.name)) != ():
        raise UnsupportedModelError("the gradient of a Gather of several places of an inner axis")
    axis %= len(shape)
    zero, one = (a.draft.constant(np.int64(number)) for number in (0, 1))
    size = a.op("Squeeze", a.op("Shape", a.input(0), start=axis, end=axis + 1))
    hit = a.op("Equal", a.op("Range", zero, size, one), index)
    mask = a.op("Reshape", hit, a.draft.ints(-1, *[1] * (len(shape) - 1 - axis)))
    wide = a.op("Unsqueeze", a.grad, a.draft.ints(axis))
    return a.op("Mul", wide, a.op("Cast", mask, to=FLOAT))


def _scattered(a: Adjoint, index: ir.Value) -> ir.Value:
    """Append the sum of the gradients at every place that an index points to."""
    nothing = a.zeros(a.op("Shape", a.input(0)))
    return a.op("ScatterND", nothing, index, a.grad, reduction="add")


def _gather_elements(a: Adjoint) -> Sequence[ir.Value | None]:
    nothing = a.zeros(a.op("Shape", a.input(0)))
    axis = int(a.attribute("axis", 0))
    return [a.op("ScatterElements", nothing, a.input(1), a.grad, axis=axis, reduction="add")]


def _top_k(a: Adjoint) -> Sequence[ir.Value | None]:
    """The gradients of the largest numbers, at their places."""
    grad = a.grads[0]
    if grad is None:
        raise UnsupportedModelError("the gradient of the places of the largest numbers")
    nothing = a.zeros(a.op("Shape", a.input(0)))
    axis = int(a.attribute("axis", -1))
    return [a.op("ScatterElements", nothing, a.node.outputs[1], grad, axis=axis)]


RULES: dict[str, Rule] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "TopK": _top_k,
}
"""Operator -> its vector-Jacobian product."""
