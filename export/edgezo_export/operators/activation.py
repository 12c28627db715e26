"""Activations: the fused forms of ONNX Runtime, and their expansions into standard operators."""

from __future__ import annotations

import math

import onnx_ir as ir

from edgezo_export.graph_builder import MICROSOFT, GraphBuilder
from edgezo_export.operators.inputs import Attributes, Inputs, given


def emit_silu(draft: GraphBuilder, x: ir.Value) -> ir.Value:
    """Append x sigmoid(x)."""
    return draft.op("QuickGelu", x, domain=MICROSOFT, alpha=1.0)


def unfused_quick_gelu(
    draft: GraphBuilder, inputs: Inputs, attributes: Attributes
) -> tuple[ir.Value, ...]:
    """x sigmoid(alpha x)."""
    x = given(inputs, 0)
    alpha = float(attributes.get("alpha", 1.702))
    scaled = x if alpha == 1 else draft.op("Mul", x, draft.scalar(alpha))
    return (draft.op("Mul", x, draft.op("Sigmoid", scaled)),)


def unfused_gelu(
    draft: GraphBuilder, inputs: Inputs, attributes: Attributes
) -> tuple[ir.Value, ...]:
    """x (1 + erf(x / sqrt 2)) / 2, or its approximation by a hyperbolic tangent."""
    x = given(inputs, 0)
    if attributes.get("approximate", "none") == "tanh":
        cube = draft.op("Mul", draft.op("Mul", x, x), x)
        inner = draft.op("Add", x, draft.op("Mul", cube, draft.scalar(0.044715)))
        gate = draft.op("Tanh", draft.op("Mul", inner, draft.scalar(math.sqrt(2 / math.pi))))
    else:
        gate = draft.op("Erf", draft.op("Mul", x, draft.scalar(math.sqrt(0.5))))
    half = draft.op("Mul", x, draft.scalar(0.5))
    return (draft.op("Mul", half, draft.op("Add", gate, draft.scalar(1.0))),)
