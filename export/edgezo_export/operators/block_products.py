"""Products with weights in groups of inputs, as GPUs multiply them: onnxruntime's MatMulNBits.

The operator reads the bytes that a bundle stores, so one file serves the processor and GPUs. The
activations stay float32: left to itself, the WebGPU provider rounds them to 8 bits, which a finite
difference does not survive (see docs/decisions/0004-coded-int8.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgezo_export.graph_builder import MICROSOFT, GraphBuilder
from edgezo_export.operators.layers import LinearSpec
from edgezo_export.quantization.group_codes import STEPS
from edgezo_export.quantization.rotation import block_size, hadamard
from edgezo_export.quantization.weights_plan import plan_codes, plan_groups

_FLOAT32_ACTIVATIONS = 1
"""`accuracy_level` of the operator."""


@dataclass(frozen=True, slots=True)
class BlockMatrix:
    """Weights of a layer in groups of inputs.

    Attributes:
        values: (out, groups, bytes of a group) uint8.
        scales: (out, groups) float32.
        shape: inputs and outputs.
        bits: of a weight; the zero point is the middle, 8 or 128.
        size: inputs of a group.
        rotation: (b, b) float32, what blocks of b inputs are multiplied by first; None for nothing.
    """

    values: ir.Value
    scales: ir.Value
    shape: tuple[int, int]
    bits: int
    size: int
    rotation: npt.NDArray[np.float32] | None = None


def group_blocks(draft: GraphBuilder, spec: LinearSpec, size: int) -> BlockMatrix:
    """Append the 8-bit weights of `spec` in groups of `size` inputs."""
    shape = spec.in_features, spec.out_features
    weight, scale = plan_groups(
        f"{spec.name}.weight",
        f"{spec.name}.scale",
        spec.sources,
        shape,
        size,
        transpose=not spec.in_out,
    )
    form = shape[1], shape[0] // size, size
    return BlockMatrix(draft.weight(weight, shape=form), draft.weight(scale), shape, 8, size)


def code_blocks(draft: GraphBuilder, spec: LinearSpec, size: int) -> BlockMatrix:
    """Append the 4-bit weights of `spec` in groups of `size` inputs, multiplied out:

        w = code * multiplier * scale / 8

    The processor rounds code * multiplier / 8 to a level of 8 bits, GPUs do not: a weight differs
    by half a level, 1/254 of the largest one of its output, at most.
    """
    shape = spec.in_features, spec.out_features
    packed, multiplier, scale = plan_codes(
        f"{spec.name}.weight", spec.name, spec.sources, shape, size, transpose=not spec.in_out
    )
    form = shape[1], shape[0] // size, size // 2
    eighth = draft.op("Mul", draft.weight(scale), draft.scalar(1 / STEPS))
    scales = draft.op("DequantizeLinear", draft.weight(multiplier), eighth, axis=0)
    rotation = hadamard(block_size(shape[0]))
    return BlockMatrix(draft.weight(packed, shape=form), scales, shape, 4, size, rotation)


def block_product(draft: GraphBuilder, x: ir.Value, matrix: BlockMatrix) -> ir.Value:
    """Append x W, (..., in) -> (..., out)."""
    return draft.op(
        "MatMulNBits",
        x,
        matrix.values,
        matrix.scales,
        domain=MICROSOFT,
        K=matrix.shape[0],
        N=matrix.shape[1],
        bits=matrix.bits,
        block_size=matrix.size,
        accuracy_level=_FLOAT32_ACTIVATIONS,
    )
