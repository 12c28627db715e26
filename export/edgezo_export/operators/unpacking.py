"""Numbers of a few bits taken out of bytes by quantized element-wise operators.

These are vectorized where the bitwise ones of ONNX Runtime (BitwiseAnd, BitShift) are not, which
are a few times slower.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgezo_export.graph_builder import MICROSOFT, GraphBuilder

Shape = tuple[int | str, ...]
"""A str names a dimension that is not known before a pass."""


def quantized(
    draft: GraphBuilder, op_type: str, shape: Shape, dtype: ir.DataType, *inputs: ir.Value
) -> ir.Value:
    """Append an operator on a, its scale and zero point, the same of b, and of the result.

    Its shape and type are declared: ONNX cannot infer those of operators that it does not know.
    """
    made = draft.op(op_type, *inputs, domain=MICROSOFT)
    made.type, made.shape = ir.TensorType(dtype), ir.Shape(shape)
    return made


def parts_of_bytes(
    draft: GraphBuilder, packed: ir.Value, bits: int, shape: Shape
) -> list[ir.Value]:
    """Append the 8 / bits numbers of each byte, uint8 tensors of the bytes' shape, lowest first.

    From the highest part on: round((byte - (step / 2 - 1)) / step) is byte // step, for the rest
    below it too. The step is a thousandth larger, so that no half is rounded up.

    Args:
        draft: the graph.
        packed: the bytes.
        bits: of a number: 1, 2 or 4.
        shape: of `packed`.
    """
    one, none = draft.scalar(1.0), draft.constant(np.uint8(0))
    unit = draft.constant(np.uint8(1))
    known = shape, ir.DataType.UINT8
    found: list[ir.Value] = []
    rest = packed
    for part in reversed(range(1, 8 // bits)):
        step = 1 << (part * bits)
        share, below = draft.scalar(1 / (1.001 * step)), draft.constant(np.uint8(step // 2 - 1))
        high = quantized(
            draft, "QLinearMul", *known, rest, share, below, unit, one, none, one, none
        )
        less = draft.scalar(-float(step))
        rest = quantized(draft, "QLinearAdd", *known, rest, one, none, high, less, none, one, none)
        found.append(high)
    return [rest, *reversed(found)]
