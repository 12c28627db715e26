"""Short convolutions over the tokens of a row, one filter per channel, as shifted products.

y[c, t] = sum_i w[c, i] x[c, t + i - left]

Products and sums have a derivative, and cost less than ONNX Runtime's Conv for the three or four
tokens that such filters see.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.inputs import Attributes

_LONGEST = 16
"""Tokens of the longest filter that is written out."""


def emit_short_convolution(
    draft: GraphBuilder,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None,
    shape: tuple[int, ...],
    attributes: Attributes,
) -> ir.Value:
    """Append the convolution of x (R, C, S).

    Args:
        draft: the graph.
        x: the channels.
        weight: (C, 1, k).
        bias: (C,) or None.
        shape: of the weight.
        attributes: of the Conv.
    Raises:
        UnsupportedModelError: filters mix channels, are long, dilated or strided.
    """
    group = int(attributes.get("group", 1))
    plain = all(set(attributes.get(name, (1,))) == {1} for name in ("strides", "dilations"))
    if len(shape) != 3 or shape[1] != 1 or shape[0] != group or shape[2] > _LONGEST or not plain:
        raise UnsupportedModelError(
            f"operator Conv with weights {shape} in {group} groups: only filters of one channel "
            f"and up to {_LONGEST} tokens, without strides, are computed"
        )
    left, right = (int(pad) for pad in attributes.get("pads", (0, 0)))
    padded = draft.op("Pad", x, draft.ints(0, 0, left, 0, 0, right)) if left or right else x
    taps = draft.ops("Split", shape[2], weight, draft.ints(*[1] * shape[2]), axis=2)
    result: ir.Value | None = None
    for shift, tap in enumerate(taps):
        rest = shift + 1 - shape[2]
        end = draft.ints(rest if rest else int(np.iinfo(np.int64).max))
        seen = draft.op("Slice", padded, draft.ints(shift), end, draft.ints(2))
        share = draft.op("Mul", seen, draft.op("Squeeze", tap, draft.ints(1)))
        result = share if result is None else draft.op("Add", result, share)
    if result is None:
        raise UnsupportedModelError("operator Conv with filters of no tokens")
    return (
        result
        if bias is None
        else draft.op("Add", result, draft.op("Unsqueeze", bias, draft.ints(1)))
    )
