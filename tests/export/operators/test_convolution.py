"""Short convolutions against those of torch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.convolution import emit_short_convolution
from tests.export.graph_runner import run

FLOAT = ir.DataType.FLOAT


@pytest.mark.parametrize(("left", "right"), [(2, 0), (2, 2), (0, 0)])
def test_filters_of_one_channel(left, right):
    generator = np.random.default_rng(0)
    x, w, b = (generator.normal(size=s).astype(np.float32) for s in ((2, 4, 7), (4, 1, 3), (4,)))
    draft = GraphBuilder("convolution")
    own = draft.input("x", FLOAT, ("r", 4, "s")), draft.input("w", FLOAT, (4, 1, 3))
    bias = draft.input("b", FLOAT, (4,))
    attributes = {"group": 4, "pads": (left, right), "strides": (1,), "dilations": (1,)}
    y = emit_short_convolution(draft, *own, bias, (4, 1, 3), attributes)
    draft.output(y, "y", FLOAT, ("r", 4, "t"))
    padded = torch.nn.functional.pad(torch.tensor(x), (left, right))
    expected = torch.nn.functional.conv1d(padded, torch.tensor(w), torch.tensor(b), groups=4)
    np.testing.assert_allclose(run(draft, {"x": x, "w": w, "b": b})["y"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((4, 2, 3), {"group": 2}),
        ((4, 1, 99), {"group": 4}),
        ((4, 1, 3), {"group": 4, "strides": (2,)}),
    ],
)
def test_other_convolutions_are_named(shape, attributes):
    draft = GraphBuilder("convolution")
    x, w = draft.input("x", FLOAT, ("r", 4, "s")), draft.input("w", FLOAT, shape)
    with pytest.raises(UnsupportedModelError, match="operator Conv with weights"):
        emit_short_convolution(draft, x, w, None, shape, attributes)
