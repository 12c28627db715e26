"""Norms: the fused forms of ONNX Runtime, and their expansions into standard operators."""

from __future__ import annotations

import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.inputs import Attributes, Inputs, given


def emit_rms_norm(draft: GraphBuilder, x: ir.Value, gain: ir.Value, epsilon: float) -> ir.Value:
    """Append x / sqrt(mean(x^2) + epsilon) * gain over the last axis."""
    return draft.op("SimplifiedLayerNormalization", x, gain, axis=-1, epsilon=epsilon, stash_type=1)


def emit_rms_slope(draft: GraphBuilder, x: ir.Value, gain: ir.Value, epsilon: float) -> ir.Value:
    """Append gain / sqrt(mean(x^2) + epsilon), the shape of x.

    This is the diagonal part of the derivative diag(gain) / rms (I - x x' / (H rms^2)) of the norm.
    """
    square = draft.op("ReduceMean", draft.op("Mul", x, x), draft.ints(-1), keepdims=1)
    root = draft.op("Sqrt", draft.op("Add", square, draft.scalar(epsilon)))
    return draft.op("Div", gain, root)


def unfused_rms_norm(
    draft: GraphBuilder, inputs: Inputs, attributes: Attributes
) -> tuple[ir.Value, ...]:
    """x / sqrt(mean(x^2) + epsilon) * gain."""
    x, gain = given(inputs, 0), given(inputs, 1)
    return (draft.op("Mul", _normalized(draft, x, attributes), gain),)


def unfused_layer_norm(
    draft: GraphBuilder, inputs: Inputs, attributes: Attributes
) -> tuple[ir.Value, ...]:
    """The RMS norm of x - mean(x), plus the bias if there is one."""
    x, gain = given(inputs, 0), given(inputs, 1)
    centred = draft.op("Sub", x, draft.op("ReduceMean", x, draft.ints(-1), keepdims=1))
    result = draft.op("Mul", _normalized(draft, centred, attributes), gain)
    if len(inputs) > 2 and inputs[2] is not None:
        result = draft.op("Add", result, inputs[2])
    return (result,)


def _normalized(draft: GraphBuilder, x: ir.Value, attributes: Attributes) -> ir.Value:
    if int(attributes.get("axis", -1)) != -1:
        raise UnsupportedModelError("a norm over more than the last axis")
    square = draft.op("ReduceMean", draft.op("Mul", x, x), draft.ints(-1), keepdims=1)
    epsilon = draft.scalar(float(attributes.get("epsilon", 1e-5)))
    root = draft.op("Sqrt", draft.op("Add", square, epsilon))
    return draft.op("Mul", x, draft.op("Reciprocal", root))
