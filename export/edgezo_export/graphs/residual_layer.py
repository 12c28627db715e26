"""The linear layers of a block whose outputs are added to the hidden states that it returns."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgezo_export.trace.partition import Segment
from edgezo_export.trace.symbols import DOMAIN
from edgezo_export.trace.values import fixed_shape, present


@dataclass(frozen=True, slots=True)
class ResidualLayer:
    """A traced linear layer.

    Attributes:
        x: its input, (R, S, in).
        weight: its weight.
        in_features: in.
        norm: the RMS norm between the layer and the sum; None if the sum takes the layer's output.
    """

    x: ir.Value
    weight: ir.Value
    in_features: int
    norm: ir.Node | None = None


def residual_layers(segment: Segment) -> list[ResidualLayer]:
    """Return the linear layers whose outputs a block adds to the states it begins with.

    They are in the order of the block, attention's before that of the MLP. A change of the output
    of the last one is the same change of the hidden states behind the block, but for an RMS norm
    that may lie between a layer and the sum. A layer with something else between is left out, and
    so are all before it.
    """
    found: list[ResidualLayer] = []
    value: ir.Value | None = segment.hidden_out
    while value is not None and value is not segment.hidden_in:
        last = value.producer()
        if last is None or last.op_type != "Add" or last.domain == DOMAIN:
            break
        addends = [present(own) for own in last.inputs]
        layers = [_layer(own) for own in addends]
        if sum(layer is not None for layer in layers) != 1:
            break
        found += [layer for layer in layers if layer is not None]
        value = next(own for own, layer in zip(addends, layers, strict=True) if layer is None)
    return found[::-1]


def _layer(value: ir.Value) -> ResidualLayer | None:
    """The linear layer that makes a value for one use alone, with an RMS norm behind it or none."""
    norm = _only(value, "RmsNorm")
    if norm is not None:
        value = present(norm.inputs[0])
    node = _only(value, "Linear")
    if node is None:
        return None
    x, weight = (present(own) for own in node.inputs[:2])
    if x.shape is None or len(x.shape) != 3:
        return None
    in_out = node.attributes.get("in_out")
    rows, columns = fixed_shape(weight)
    return ResidualLayer(x, weight, rows if in_out is not None and in_out.value else columns, norm)


def _only(value: ir.Value, op_type: str) -> ir.Node | None:
    """The symbolic operator of a type that makes a value for one use alone."""
    node = value.producer()
    if node is None or node.domain != DOMAIN or node.op_type != op_type:
        return None
    return node if len(value.uses()) == 1 else None
