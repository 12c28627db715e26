"""Where an edit is made: the graph, values at hand, copies of trainables spread over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder
from edgezo_runtime.bundle.manifest import TrainableInfo


@dataclass(slots=True)
class Site:
    """A value in a graph under construction that an edit changes.

    Every trainable has a leading axis of P copies; rows r * R / P up to (r + 1) * R / P take copy
    r. Tokens of those rows are viewed as (P, R/P * S, ·) for it.

    Attributes:
        draft: the graph.
        x: input of the layer, (R, S, in) or (R*S, in).
        y: the value that is changed.
        like: int64 vector, the shape of y.
        active: (R, S) float32, 1 for tokens the adapter acts on, 0 for the others; None where the
            scheme acts everywhere.
    """

    draft: GraphBuilder
    x: ir.Value
    y: ir.Value
    like: ir.Value
    active: ir.Value | None

    def copies(self, info: TrainableInfo) -> ir.Value:
        """The input (P, *shape) of a trainable."""
        axis = f"copies_{info.role}_{self.draft.local(info.module)}"
        return self.draft.trainable(info.name, (axis, *info.shape))

    def count(self, copies: ir.Value) -> ir.Value:
        """P as an int64 vector of one."""
        return self.draft.op("Shape", copies, start=0, end=1)

    def view(self, value: ir.Value, count: ir.Value, width: int) -> ir.Value:
        """(P, ·, width)."""
        shape = self.draft.op("Concat", count, self.draft.ints(-1, width), axis=0)
        return self.draft.op("Reshape", value, shape)

    def per_token(self, tensor: ir.Value) -> ir.Value:
        """(P, width) -> (P, 1, width)."""
        return self.draft.op("Unsqueeze", tensor, self.draft.ints(1))

    def acting(self, change: ir.Value, count: ir.Value) -> ir.Value:
        """A change (P, R/P * S, ·), zero for tokens the adapter does not act on."""
        if self.active is None:
            return change
        column = self.draft.op("Concat", count, self.draft.ints(-1, 1), axis=0)
        return self.draft.op("Mul", change, self.draft.op("Reshape", self.active, column))

    def add(self, change: ir.Value) -> ir.Value:
        """y + change, whatever view of y's numbers the change is."""
        return self.draft.op("Add", self.y, self.draft.op("Reshape", change, self.like))

    def scaled(self, gain: ir.Value, width: int) -> ir.Value:
        """y times a gain (P, width) of its last axis, where the adapter acts.

        It is y + y (gain - 1), so that a gain of one leaves y as it was to the last bit.
        """
        draft = self.draft
        count = self.count(gain)
        excess = draft.op("Sub", self.per_token(gain), draft.scalar(1.0))
        change = draft.op("Mul", self.view(self.y, count, width), excess)
        return self.add(self.acting(change, count))


def product(draft: GraphBuilder, x: ir.Value, columns: ir.Value, *, alone: bool) -> ir.Value:
    """x (P, N, in) times `columns` (P, in, out).

    A column that is alone is multiplied twice, and one result left out: alone it would take the
    matrix-vector kernel, which goes through four tokens at a time and rounds the last one to three
    differently: a token's result would depend on how many follow it.
    """
    if not alone:
        return draft.op("MatMul", x, columns)
    twice = draft.op("MatMul", x, draft.op("Concat", columns, columns, axis=2))
    return draft.op("Slice", twice, draft.ints(0), draft.ints(1), draft.ints(2))


def low_rank(site: Site, factors: Sequence[TrainableInfo], scale: float) -> ir.Value:
    """y + scale * x F1^T F2^T ..., every run of rows with its own copies.

    Args:
        site: a linear layer's output.
        factors: matrices (out, in) from the input to the output; `active` and the scale go behind
            the first.
        scale: alpha / rank.
    """
    draft = site.draft
    low = site.x
    for number, info in enumerate(factors):
        factor = site.copies(info)
        count = site.count(factor)
        view = site.view(low, count, info.shape[1])  # (P, R/P * S, in or rank)
        columns = draft.op("Transpose", factor, perm=[0, 2, 1])
        low = product(draft, view, columns, alone=info.shape[0] == 1)
        if number == 0:
            low = site.acting(draft.op("Mul", low, draft.scalar(scale)), count)
    return site.add(low)
