"""The linear layer of a block whose output is added to the hidden states that the block returns."""

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
    """

    x: ir.Value
    weight: ir.Value
    in_features: int


def residual_layer(segment: Segment) -> ResidualLayer | None:
    """Return the linear layer that the last addition of a block adds to the residual.

    A change of the output of this layer is the same change of the hidden states behind the block.
    None if something else, such as a norm, lies between: the two changes then differ.
    """
    last = segment.hidden_out.producer()
    if last is None or last.op_type != "Add" or last.domain == DOMAIN:
        return None
    makers = [value.producer() for value in last.inputs if value is not None]
    layers = [
        node
        for node in makers
        if node is not None and node.domain == DOMAIN and node.op_type == "Linear"
    ]
    if len(layers) != 1 or len(layers[0].outputs[0].uses()) != 1:
        return None
    x, weight = (present(value) for value in layers[0].inputs[:2])
    if x.shape is None or len(x.shape) != 3:
        return None
    in_out = layers[0].attributes.get("in_out")
    rows, columns = fixed_shape(weight)
    return ResidualLayer(x, weight, rows if in_out is not None and in_out.value else columns)
