"""The site of an edit: the graph, the value it changes, and copies of trainables per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgezo_export.graph_builder import COPIES, GraphBuilder
from edgezo_runtime.bundle.manifest import TrainableInfo


@dataclass(slots=True)
class Site:
    """A value of a graph under construction that an edit changes.

    Every trainable has a leading axis of P copies; rows r * R / P to (r + 1) * R / P use copy r.
    The tokens of these rows are viewed as (P, R/P * S, ·).

    Attributes:
        draft: the graph.
        x: input of the layer, (R, S, in) or (R*S, in).
        y: the value to change.
        like: int64 vector, the shape of y.
        active: (R, S) float32, 1 for tokens that the adapter acts on, 0 for others; None if the
            scheme acts on all tokens.
    """

    draft: GraphBuilder
    x: ir.Value
    y: ir.Value
    like: ir.Value
    active: ir.Value | None

    def copies(self, info: TrainableInfo) -> ir.Value:
        """Declare the input (P, *shape) of a trainable."""
        axis = f"{COPIES}{info.role}_{self.draft.local(info.module)}"
        return self.draft.trainable(info.name, (axis, *info.shape))

    def count(self, copies: ir.Value) -> ir.Value:
        """Append P as an int64 vector of length 1."""
        return self.draft.op("Shape", copies, start=0, end=1)

    def view(self, value: ir.Value, count: ir.Value, width: int) -> ir.Value:
        """Append a view (P, ·, width)."""
        shape = self.draft.op("Concat", count, self.draft.ints(-1, width), axis=0)
        return self.draft.op("Reshape", value, shape)

    def per_token(self, tensor: ir.Value) -> ir.Value:
        """Append (P, width) -> (P, 1, width)."""
        return self.draft.op("Unsqueeze", tensor, self.draft.ints(1))

    def acting(self, change: ir.Value, count: ir.Value) -> ir.Value:
        """Append a change (P, R/P * S, ·), zero for tokens that the adapter does not act on."""
        if self.active is None:
            return change
        column = self.draft.op("Concat", count, self.draft.ints(-1, 1), axis=0)
        return self.draft.op("Mul", change, self.draft.op("Reshape", self.active, column))

    def add(self, change: ir.Value) -> ir.Value:
        """Append y + change; the change may be any view with the numbers of y."""
        return self.draft.op("Add", self.y, self.draft.op("Reshape", change, self.like))

    def scaled(self, gain: ir.Value, width: int) -> ir.Value:
        """Append y times a gain (P, width) of its last axis, where the adapter acts.

        It is y + y (gain - 1), so a gain of one leaves y unchanged to the last bit.
        """
        draft = self.draft
        count = self.count(gain)
        excess = draft.op("Sub", self.per_token(gain), draft.scalar(1.0))
        change = draft.op("Mul", self.view(self.y, count, width), excess)
        return self.add(self.acting(change, count))


def product(draft: GraphBuilder, x: ir.Value, columns: ir.Value, *, alone: bool) -> ir.Value:
    """Append x (P, N, in) times `columns` (P, in, out).

    A single column is multiplied twice and one result dropped. The matrix-vector kernel processes
    four tokens at a time and rounds the last one to three differently, so the result of a token
    would depend on how many tokens follow it.

    Args:
        draft: the graph.
        x: the left factor.
        columns: the right factor.
        alone: out is 1.
    """
    if not alone:
        return draft.op("MatMul", x, columns)
    twice = draft.op("MatMul", x, draft.op("Concat", columns, columns, axis=2))
    return draft.op("Slice", twice, draft.ints(0), draft.ints(1), draft.ints(2))


def low_rank(site: Site, factors: Sequence[TrainableInfo], scale: float) -> ir.Value:
    """Append y + scale * x F1^T F2^T ...; each group of rows uses its own copies.

    Args:
        site: the output of a linear layer.
        factors: matrices (out, in) from the input to the output; `active` and the scale are applied
            after the first.
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
