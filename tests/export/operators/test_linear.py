"""Linear layers in every form against torch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.linear import LinearLowering, LinearSpec, Taps
from tests.export.graph_runner import run

FLOAT = ir.DataType.FLOAT
WIDTH = 16
SPEC = LinearSpec(("m.q", "m.k"), (12, 4), WIDTH, False, ("m.q.bias", "m.k.bias"))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = {"q": torch.nn.Linear(16, 12), "k": torch.nn.Linear(16, 4)}
    return torch.nn.ModuleDict({"m": torch.nn.ModuleDict(layers)}).requires_grad_(False)


def product(model, folder, quant: str, code: bool, dequantize: bool = False):
    """Input, and what the graph makes of it."""
    draft = GraphBuilder("linear", "m.")
    x = draft.input("x", FLOAT, ("rows", "tokens", 16))
    linears = LinearLowering(draft, quant, dequantize=dequantize)
    if code:
        linears.declare_code()
    y = linears.emit(SPEC, x, draft.op("Shape", x, start=0, end=2))
    draft.output(linears.add_bias(SPEC, y), "y", FLOAT, ("rows", "tokens", 16))
    values = np.random.default_rng(0).normal(0, 1, (4, 3, 16)).astype(np.float32)
    one = np.eye(2, dtype=np.float32)
    feed = {"x": values, "code": one, "decode": one}
    return values, run(draft, feed, model, folder)["y"]


@pytest.mark.parametrize(
    ("quant", "code", "dequantize", "tolerance"),
    [
        ("fp32", True, False, 1e-5),
        ("fp32", False, False, 1e-5),
        ("int8", True, False, 0.04),
        ("int8", False, True, 0.02),
        ("w4", True, False, 0.3),
        ("w4", False, True, 0.3),
        ("w8", True, False, 0.01),
        ("w8", False, True, 0.01),
        ("fp16", True, False, 0.001),
        ("fp16", False, True, 0.001),
    ],
)
def test_layers_side_by_side(model, tmp_path, quant, code, dequantize, tolerance):
    x, found = product(model, tmp_path, quant, code, dequantize)
    expected = [model["m"][name](torch.tensor(x)).numpy() for name in ("q", "k")]
    np.testing.assert_allclose(found, np.concatenate(expected, -1), atol=tolerance)


def test_coded_and_dequantized_products_have_the_same_weights(model, tmp_path):
    """They differ by the rounding of the activations to 8 bits only."""
    (tmp_path / "b").mkdir()
    _, coded = product(model, tmp_path, "w4", True)
    _, floats = product(model, tmp_path / "b", "w4", False, True)
    np.testing.assert_allclose(coded, floats, atol=0.02)


@pytest.mark.parametrize(
    ("quant", "width", "dtype"),
    [
        ("w4", 40, ir.DataType.INT8),
        ("w8", 40, ir.DataType.FLOAT),
        ("w4", 48, ir.DataType.UINT8),
        ("w8", 48, ir.DataType.UINT8),
    ],
)
def test_odd_widths_have_no_groups(quant, width, dtype):
    draft = GraphBuilder("linear", "m.")
    x = draft.input("x", FLOAT, ("rows", "tokens", width))
    linears = LinearLowering(draft, quant)
    linears.declare_code()
    linears.emit(LinearSpec(("m.q",), (8,), width, False, ()), x, draft.op("Shape", x, end=2))
    assert draft.inputs["q.weight"].dtype == dtype


def test_taps_collect_what_layers_read():
    draft = GraphBuilder("linear", "m.")
    x = draft.input("x", FLOAT, ("rows", "tokens", WIDTH))
    taps: Taps = []
    LinearLowering(draft, "fp32", taps=taps).emit(SPEC, x, draft.op("Shape", x, end=2))
    assert taps == [(SPEC, x)]
