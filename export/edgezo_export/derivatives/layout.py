"""Vector-Jacobian products of operators that rearrange, join or split tensors."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgezo_export.derivatives.adjoint import Adjoint, Rule
from edgezo_export.errors import UnsupportedModelError


def _reshape(a: Adjoint) -> Sequence[ir.Value | None]:
    # 0 is a size here: an expert may have no tokens
    return [a.op("Reshape", a.grad, a.op("Shape", a.input(0)), allowzero=1)]


def _transpose(a: Adjoint) -> Sequence[ir.Value | None]:
    perm = [int(axis) for axis in a.attribute("perm", ())]
    if not perm:
        return [a.op("Transpose", a.grad)]
    return [a.op("Transpose", a.grad, perm=[perm.index(axis) for axis in range(len(perm))])]


def _expand(a: Adjoint) -> Sequence[ir.Value | None]:
    return [a.reduced(a.grad, 0)]


def _tile(a: Adjoint) -> Sequence[ir.Value | None]:
    """The sum over the copies: the result in the shape (r0, d0, r1, d1, ...)."""
    rank = len(a.shapes.get(str(a.input(0).name), ()))
    if not rank:
        raise UnsupportedModelError("the gradient of a Tile of unknown rank")
    pairs = [
        a.op("Unsqueeze", value, a.draft.ints(1))
        for value in (a.input(1), a.op("Shape", a.input(0)))
    ]
    apart = a.op("Reshape", a.op("Concat", *pairs, axis=1), a.draft.ints(-1))
    copies = a.draft.ints(*range(0, 2 * rank, 2))
    return [a.op("ReduceSum", a.op("Reshape", a.grad, apart), copies, keepdims=0)]


def _concat(a: Adjoint) -> Sequence[ir.Value | None]:
    axis = int(a.attribute("axis", 0))
    place = a.draft.ints(axis)
    sizes = [a.op("Gather", a.op("Shape", value), place) for value in a.node.inputs]
    lengths = a.op("Concat", *sizes, axis=0)
    return a.draft.ops("Split", len(sizes), a.grad, lengths, axis=axis)


def _split(a: Adjoint) -> Sequence[ir.Value | None]:
    parts = [
        a.zeros(a.op("Shape", value)) if grad is None else grad
        for value, grad in zip(a.node.outputs, a.grads, strict=True)
    ]
    return [a.op("Concat", *parts, axis=int(a.attribute("axis", 0)))]


def _slice(a: Adjoint) -> Sequence[ir.Value | None]:
    """The gradient, and zeros for the part that was left out."""
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
    """Append the gradient of every n-th number of an axis: zeros come between the numbers."""
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


RULES: dict[str, Rule] = {
    "Concat": _concat,
    "Expand": _expand,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _reshape,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
"""Operator -> its vector-Jacobian product."""
