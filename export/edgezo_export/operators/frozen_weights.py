"""The frozen matrix of linear layers in the forms that a bundle stores, made ready for a product.

4-bit codes become int8 levels, a tile at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.layers import LinearSpec
from edgezo_export.operators.tiles import Tile
from edgezo_export.operators.unpacking import parts_of_bytes, quantized
from edgezo_export.quantization.group_codes import CODE_ZERO, GROUP_SIZES, STEPS
from edgezo_export.quantization.quantize import ZERO_POINT
from edgezo_export.quantization.rotation import block_size, hadamard
from edgezo_export.quantization.weights_plan import (
    PlannedTensor,
    plan_codes,
    plan_groups,
    plan_linear,
)

_SPAN = GROUP_SIZES[-1]
"""Inputs within which unpacking changes the order: the even ones come before the odd ones."""

_HALF = _SPAN // 2


@dataclass(frozen=True, slots=True)
class IntegerMatrix:
    """Weights as integers, (in, out) int8, made tile by tile.

    Attributes:
        tile: appends the columns of a tile.
        scale: (out,) float32.
        rotation: (b, b) float32, what blocks of b inputs are multiplied by first; None for nothing.
    """

    tile: Callable[[Tile], ir.Value]
    scale: ir.Value
    rotation: npt.NDArray[np.float32] | None


def int8_matrix(draft: GraphBuilder, spec: LinearSpec) -> IntegerMatrix:
    """Append the int8 weights of `spec`."""
    weight, scale = plan_linear(
        f"{spec.name}.weight",
        f"{spec.name}.scale",
        spec.sources,
        (spec.in_features, spec.out_features),
        transpose=not spec.in_out,
    )
    size = block_size(spec.in_features)
    rotation = hadamard(size) if size > 1 else None
    values = draft.weight(weight)
    return IntegerMatrix(lambda tile: tile.of(draft, values, axis=1), draft.weight(scale), rotation)


def unpacked_matrix(draft: GraphBuilder, spec: LinearSpec, size: int) -> IntegerMatrix:
    """Append the int8 levels of the 4-bit weights of `spec`, in groups of `size` inputs.

    The inputs of the matrix are in another order than those of the layer; its rotation reorders
    the activations in the same way.
    """
    width, outputs = spec.in_features, spec.out_features
    packed, multiplier, scale = plan_codes(
        f"{spec.name}.weight",
        spec.name,
        spec.sources,
        (width, outputs),
        size,
        transpose=not spec.in_out,
    )
    codes, multipliers = draft.weight(packed), draft.weight(multiplier)

    def made(tile: Tile) -> ir.Value:
        own = tile.of(draft, codes, axis=0), tile.of(draft, multipliers, axis=0)
        return _unpacked(draft, *own, (width, tile.outputs(draft.local(spec.name))), size)

    return IntegerMatrix(made, draft.weight(scale), reordered_rotation(width))


def _unpacked(
    draft: GraphBuilder,
    packed: ir.Value,
    multiplier: ir.Value,
    shape: tuple[int, int | str],
    size: int,
) -> ir.Value:
    """Append the levels (in, out), a `shape`, of codes (out, in / 2), multipliers (out, groups)."""
    width, outputs = shape
    one = draft.scalar(1.0)
    by_input = draft.op("Transpose", packed, perm=[1, 0])
    multipliers = draft.op("Transpose", multiplier, perm=[1, 0])
    groups = width // size
    each = draft.op("Reshape", multipliers, draft.ints(groups, 1, -1))
    centre, zero = draft.constant(np.int8(CODE_ZERO)), draft.constant(np.int8(0))
    steps = draft.scalar(float(STEPS))
    halves = []
    for codes in parts_of_bytes(draft, by_input, 4, (width // 2, outputs)):
        signed = draft.op("Cast", codes, to=int(ir.DataType.INT8))
        grouped = draft.op("Reshape", signed, draft.ints(groups, size // 2, -1))
        scaled = (grouped, one, centre, each, one, zero, steps, zero)
        made = (groups, size // 2, outputs), ir.DataType.INT8
        levels = quantized(draft, "QLinearMul", *made, *scaled)
        halves.append(draft.op("Reshape", levels, draft.ints(width // _SPAN, _HALF, -1)))
    joined = draft.op("Concat", *halves, axis=1)
    return draft.op("Reshape", joined, draft.ints(width, -1))


def reordered_rotation(width: int) -> npt.NDArray[np.float32]:
    """The rotation of blocks of inputs, its results in the order of an unpacked matrix."""
    rotation = hadamard(block_size(width))
    order = np.arange(len(rotation)).reshape(-1, _HALF, 2).transpose(0, 2, 1).reshape(-1)
    return np.ascontiguousarray(rotation[:, order])


def float_matrix(draft: GraphBuilder, spec: LinearSpec) -> ir.Value:
    """Append the float32 weights of `spec`, (in, out)."""
    return draft.weight(_joined(spec, half=False))


def half_matrix(draft: GraphBuilder, spec: LinearSpec, tile: Tile) -> ir.Value:
    """Append a tile of the float16 weights of `spec` as float32, (in, out)."""
    weight = tile.of(draft, draft.weight(_joined(spec, half=True)), axis=1)
    return draft.op("Cast", weight, to=int(ir.DataType.FLOAT))


def _joined(spec: LinearSpec, *, half: bool) -> PlannedTensor:
    return PlannedTensor(
        f"{spec.name}.weight",
        "F16" if half else "F32",
        (spec.in_features, spec.out_features),
        spec.sources,
        "concat_half" if half else "concat",
        not spec.in_out,
    )


def group_matrix(draft: GraphBuilder, spec: LinearSpec, size: int, tile: Tile) -> ir.Value:
    """Append a tile of the 8-bit weights of `spec` in groups of inputs as float32, (in, out)."""
    weight, scale = plan_groups(
        f"{spec.name}.weight",
        f"{spec.name}.scale",
        spec.sources,
        (spec.in_features, spec.out_features),
        size,
        transpose=not spec.in_out,
    )
    values = draft.op("Transpose", tile.of(draft, draft.weight(weight), axis=0), perm=[1, 0])
    scales = draft.op("Transpose", tile.of(draft, draft.weight(scale), axis=0), perm=[1, 0])
    zero = draft.constant(np.uint8(ZERO_POINT))
    zeros = draft.op("Expand", zero, draft.op("Shape", scales))
    return draft.op("DequantizeLinear", values, scales, zeros, axis=0, block_size=size)
