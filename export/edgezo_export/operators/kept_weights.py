"""Matrices whose codes are kept, made float32 for a product or for single rows.

    W[n, k] = scale[n, g] * (code - zero) + minimum'[n, g],   minimum' = minimum + scale * zero
    x W^T   = x (scale * (code - zero))^T + s minimum'^T,     s[t, g] the sum of x over a group

In products the minimum is a second product with the sums of the groups. It is a thirtieth of the
work, where adding it to the weights would be a pass over all of them in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.layers import LinearSpec
from edgezo_export.operators.tiles import joined, tiles_of
from edgezo_export.operators.unpacking import parts_of_bytes, quantized
from edgezo_export.quantization.kept_plan import plan_kept
from edgezo_export.quantization.weights_plan import Kind
from edgezo_export.sources.stored_codes import NF4, CodeForm

_FLOAT = int(ir.DataType.FLOAT)

Parts = Mapping[Kind, ir.Value]
"""What is stored of a matrix, or of some of its rows."""

_Rows = int | str
"""A number of rows; a str names one that is not known before a pass."""


@dataclass(frozen=True, slots=True)
class KeptMatrix:
    """A matrix as float32.

    Attributes:
        values: (N, K), without the minimum.
        minimum: (N, G), None if there is none.
    """

    values: ir.Value
    minimum: ir.Value | None


def kept_product(
    draft: GraphBuilder,
    spec: LinearSpec,
    form: CodeForm,
    x: ir.Value,
    leading: ir.Value,
    used: ir.Value | None = None,
) -> ir.Value:
    """Append x W^T, a tile of outputs after the other.

    Args:
        draft: the graph.
        spec: the layers, all of the same form.
        form: of their weights.
        x: (R, S, in) or (R*S, in).
        leading: int64 vector, the dimensions of x before the last.
        used: (1,) int64, 0 where x has no rows: one row of each tile is read then; else 1.
    """
    width, outputs = spec.in_features, spec.out_features
    plan = plan_kept(spec.name, spec.sources, form, (outputs, width))
    parts = {kind: draft.weight(tensor) for kind, tensor in plan.items()}
    rows = draft.op("Reshape", x, draft.ints(-1, width))
    order = parts.pop("kept_order", None)
    if order is not None:
        rows = draft.op("Gather", rows, order, axis=1)
    products = []
    for tile in tiles_of(width, outputs, used, least=1):
        own = {kind: tile.of(draft, part, axis=0) for kind, part in parts.items()}
        matrix = unpacked(draft, form, own, (tile.outputs(draft.local(spec.name)), width))
        products.append(rows_times(draft, rows, matrix, form, width))
    shape = draft.op("Concat", leading, draft.ints(outputs), axis=0)
    return draft.op("Reshape", joined(draft, products), shape, allowzero=1)


def rows_times(
    draft: GraphBuilder, rows: ir.Value, matrix: KeptMatrix, form: CodeForm, width: int
) -> ir.Value:
    """Append rows (T, K) times the transposed matrix, (T, N).

    Args:
        draft: the graph.
        rows: T may be 0.
        matrix: (N, K).
        form: of its codes.
        width: K.
    """
    y = draft.op("Gemm", rows, matrix.values, transB=1)
    if matrix.minimum is None:
        return y
    groups = draft.op("Reshape", rows, draft.ints(-1, width // form.size, form.size))
    sums = draft.op("ReduceSum", groups, draft.ints(2), keepdims=0)
    return draft.op("Add", y, draft.op("Gemm", sums, matrix.minimum, transB=1))


def kept_rows(
    draft: GraphBuilder, name: str, form: CodeForm, shape: tuple[int, int], ids: ir.Value
) -> ir.Value:
    """Append the rows `ids` of a table as float32, ids.shape + (K,)."""
    plan = plan_kept(name.removesuffix(".weight"), (name,), form, shape)
    width = shape[1]
    flat = draft.op("Reshape", ids, draft.ints(-1))
    parts: dict[Kind, ir.Value] = {
        kind: draft.op("Gather", draft.weight(tensor), flat, axis=0)
        for kind, tensor in plan.items()
    }
    values = whole(draft, unpacked(draft, form, parts, ("picked", width)), form, width)
    like = draft.op("Concat", draft.op("Shape", ids), draft.ints(width), axis=0)
    return draft.op("Reshape", values, like)


def kept_part(
    draft: GraphBuilder,
    name: str,
    form: CodeForm,
    shape: tuple[int, int],
    span: range,
    start: ir.Value,
) -> KeptMatrix:
    """Append rows of a table.

    Args:
        draft: the graph.
        name: of the table.
        form: of its codes.
        shape: of the table.
        span: the rows.
        start: (1,) int64 of value 0; the rows are made ready after it is known.
    """
    plan = plan_kept(name.removesuffix(".weight"), (name,), form, shape)
    parts: dict[Kind, ir.Value] = {}
    for kind, tensor in plan.items():
        rows = draft.weight(tensor, (span.start, span.stop))
        taken = draft.op("Slice", rows, start, draft.ints(len(span)), draft.ints(0))
        parts[kind] = draft.op("Reshape", taken, draft.ints(len(span), tensor.shape[1]))
    return unpacked(draft, form, parts, (len(span), shape[1]))


def whole(draft: GraphBuilder, matrix: KeptMatrix, form: CodeForm, width: int) -> ir.Value:
    """Append the (N, K) weights, the minimum added."""
    if matrix.minimum is None:
        return matrix.values
    groups = width // form.size
    values = draft.op("Reshape", matrix.values, draft.ints(-1, groups, form.size))
    added = draft.op("Add", values, draft.op("Unsqueeze", matrix.minimum, draft.ints(2)))
    return draft.op("Reshape", added, draft.ints(-1, width))


def unpacked(
    draft: GraphBuilder, form: CodeForm, parts: Parts, shape: tuple[_Rows, int]
) -> KeptMatrix:
    """Append a matrix (N, K) of its parts."""
    width = shape[1]
    groups = width // form.size
    scale = _fine(draft, parts["kept_scale"], parts.get("kept_factor"), form, groups)
    if form.nf4:
        return KeptMatrix(_looked_up(draft, parts["kept_codes"], scale, form, width), None)
    codes = _codes(draft, form, parts, shape)
    each = draft.op("Reshape", scale, draft.ints(-1))  # (N * G,)
    if "kept_zero" in parts:
        zeros = draft.op("Reshape", parts["kept_zero"], draft.ints(-1))
    else:
        zeros = draft.op(
            "Expand", draft.constant(np.uint8(form.zero or 0)), draft.op("Shape", each)
        )
    flat = draft.op("Reshape", codes, draft.ints(-1, form.size))
    values = draft.op("DequantizeLinear", flat, each, zeros, axis=0)
    values = draft.op("Reshape", values, draft.ints(-1, width))
    minimum = None
    if form.minimum:
        own, factor = parts["kept_minimum"], parts.get("kept_minimum_factor")
        minimum = _fine(draft, own, factor, form, groups)
        if form.zero:
            moved = draft.op("Mul", scale, draft.scalar(float(form.zero)))
            minimum = draft.op("Add", minimum, moved)
    return KeptMatrix(values, minimum)


def _fine(
    draft: GraphBuilder,
    coarse: ir.Value,
    factor: ir.Value | None,
    form: CodeForm,
    groups: int,
) -> ir.Value:
    """Append the float32 numbers of groups, (N, G), from those of super-groups and factors."""
    numbers = coarse if form.scale == "F32" else draft.op("Cast", coarse, to=_FLOAT)
    if factor is None:
        return numbers
    each = draft.op("Cast", factor, to=_FLOAT)
    each = draft.op("Reshape", each, draft.ints(-1, groups // form.factors, form.factors))
    product = draft.op("Mul", each, draft.op("Unsqueeze", numbers, draft.ints(2)))
    return draft.op("Reshape", product, draft.ints(-1, groups))


def _looked_up(
    draft: GraphBuilder, codes: ir.Value, scale: ir.Value, form: CodeForm, width: int
) -> ir.Value:
    """Append the numbers of NF4, two for each byte, times the scale of their group."""
    pairs = np.stack([np.repeat(NF4, 16), np.tile(NF4, 16)], axis=1)
    index = draft.op("Cast", codes, to=int(ir.DataType.INT32))
    found = draft.op("Gather", draft.constant(pairs), index, axis=0)  # (N, K / 2, 2)
    grouped = draft.op("Reshape", found, draft.ints(-1, width // form.size, form.size))
    scaled = draft.op("Mul", grouped, draft.op("Unsqueeze", scale, draft.ints(2)))
    return draft.op("Reshape", scaled, draft.ints(-1, width))


def _codes(draft: GraphBuilder, form: CodeForm, parts: Parts, shape: tuple[_Rows, int]) -> ir.Value:
    """Append the (N, K) uint8 codes."""
    low = parts["kept_codes"]
    if form.planes[0] == 8:
        return low
    low = _opened(draft, low, form.planes[0], shape)
    if "kept_plane" not in parts:
        return low
    high = _opened(draft, parts["kept_plane"], form.planes[1], shape)
    one, none = draft.scalar(1.0), draft.constant(np.uint8(0))
    above = draft.scalar(float(1 << form.planes[0]))
    inputs = low, one, none, high, above, none, one, none
    return quantized(draft, "QLinearAdd", shape, ir.DataType.UINT8, *inputs)


def _opened(draft: GraphBuilder, plane: ir.Value, bits: int, shape: tuple[_Rows, int]) -> ir.Value:
    """Append the (N, K) numbers of a plane."""
    parts = parts_of_bytes(draft, plane, bits, (shape[0], shape[1] * bits // 8))
    return draft.op("Concat", *parts, axis=1)
