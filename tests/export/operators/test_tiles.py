"""Tiles of frozen matrices: the same products, and no more numbers at a time than a tile has."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgezo_export.derivatives.pull_back import pull_back
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators import tiles
from edgezo_export.operators.linear import LinearLowering, LinearSpec
from edgezo_export.operators.tiles import tiles_of
from edgezo_runtime.budget.memory_model import TILE_NUMBERS
from tests.export.graph_runner import run

FLOAT = ir.DataType.FLOAT
WIDTH, SIZES = 32, (20, 8)
OUT = sum(SIZES)
SPEC = LinearSpec(("m.q", "m.k"), SIZES, WIDTH, False, ())
SMALL = 8 * WIDTH
FORMS = ("fp16", "int8", "w4", "w8")


@pytest.fixture
def small(monkeypatch):
    """Tiles of 8 outputs: four of a matrix, the last one smaller."""
    monkeypatch.setattr(tiles, "NUMBERS", SMALL)
    monkeypatch.setattr(tiles, "_ALIGNED", 4)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = {n: torch.nn.Linear(WIDTH, size) for n, size in zip("qk", SIZES, strict=True)}
    return torch.nn.ModuleDict({"m": torch.nn.ModuleDict(layers)}).requires_grad_(False)


def built(quant: str, *, dequantize: bool) -> tuple[GraphBuilder, ir.Value, ir.Value]:
    """The graph, its input and the product."""
    draft = GraphBuilder("linear", "m.")
    x = draft.input("x", FLOAT, ("rows", "tokens", WIDTH))
    linears = LinearLowering(draft, quant, dequantize=dequantize)
    linears.declare_code()
    return draft, x, linears.emit(SPEC, x, draft.op("Shape", x, start=0, end=2))


def feed() -> dict[str, np.ndarray]:
    rows = np.random.default_rng(0).normal(0, 1, (4, 3, WIDTH)).astype(np.float32)
    grad = np.random.default_rng(1).normal(0, 1, (4, 3, OUT)).astype(np.float32)
    one = np.eye(2, dtype=np.float32)
    return {"x": rows, "code": one, "decode": one, "grad": grad}


def product(model, folder, quant: str, *, dequantize: bool = False) -> np.ndarray:
    folder.mkdir()
    draft, _, y = built(quant, dequantize=dequantize)
    draft.output(y, "y", FLOAT, ("rows", "tokens", OUT))
    return run(draft, feed(), model, folder)["y"]


def backward(quant: str) -> GraphBuilder:
    """The gradient of the input from that of the product."""
    draft, x, y = built(quant, dequantize=True)
    grad = draft.input("grad", FLOAT, ("rows", "tokens", OUT))
    (found,) = pull_back(draft, {y: grad}, [x])
    draft.output(found, "g", FLOAT, ("rows", "tokens", WIDTH))
    return draft


@pytest.mark.parametrize(
    ("width", "outputs", "expected"),
    [(4096, 14336, [512] * 28), (14336, 4096, [128] * 32), (2048, 8192, [1024] * 8)],
)
def test_tiles_of_large_layers(width, outputs, expected):
    found = tiles_of(width, outputs)
    assert [tile.stop - tile.start for tile in found] == expected
    assert found[0].start == 0
    assert [tile.start for tile in found[1:]] == [tile.stop for tile in found[:-1]]
    assert found[-1].stop == outputs
    assert not any(tile.whole for tile in found)


def test_a_small_layer_is_one_tile():
    (tile,) = tiles_of(576, 1536)
    assert (tile.start, tile.stop, tile.whole) == (0, 1536, True)


def test_a_row_longer_than_a_tile():
    """A tile has at least the outputs that a kernel takes together."""
    assert len(tiles_of(1 << 20, 256)) == 4


@pytest.mark.parametrize("quant", ["int8", "w4"])
def test_coded_products_have_the_same_bits(model, tmp_path, quant, monkeypatch):
    whole = product(model, tmp_path / "whole", quant)
    monkeypatch.setattr(tiles, "NUMBERS", SMALL)
    monkeypatch.setattr(tiles, "_ALIGNED", 4)
    np.testing.assert_array_equal(product(model, tmp_path / "tiles", quant), whole)


@pytest.mark.parametrize("quant", FORMS)
def test_float_products(model, tmp_path, quant, monkeypatch):
    whole = product(model, tmp_path / "whole", quant, dequantize=True)
    monkeypatch.setattr(tiles, "NUMBERS", SMALL)
    monkeypatch.setattr(tiles, "_ALIGNED", 4)
    found = product(model, tmp_path / "tiles", quant, dequantize=True)
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("quant", "tolerance"), [("fp16", 2e-3), ("int8", 0.05), ("w4", 0.5), ("w8", 0.02)]
)
def test_gradients_against_torch(model, tmp_path, quant, tolerance):
    own = feed()
    found = run(backward(quant), own, model, tmp_path)["g"]
    x = torch.tensor(own["x"], requires_grad=True)
    y = torch.cat([model["m"][name](x) for name in "qk"], -1)
    y.backward(torch.tensor(own["grad"]))
    np.testing.assert_allclose(found, x.grad.numpy(), atol=tolerance)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("quant", FORMS)
def test_no_weights_in_float32_but_those_of_a_tile(quant):
    draft = backward(quant)
    shapes = draft.shapes()
    made = [
        shapes[str(node.outputs[0].name)]
        for node in draft.nodes
        if node.op_type in ("Cast", "DequantizeLinear")
    ]
    floats = [shape for shape in made if shape[0] == WIDTH]
    assert len(floats) >= 4
    assert all(int(shape[0]) * int(shape[1]) <= SMALL for shape in floats)


@pytest.mark.parametrize("quant", FORMS)
@pytest.mark.parametrize("rows", [0, 2])
def test_unused_weights(model, tmp_path, quant, rows):
    """No rows: a product of no rows, with every output; else the product as ever."""
    draft = GraphBuilder("linear", "m.")
    x = draft.input("x", FLOAT, ("rows", "tokens", WIDTH))
    used = draft.input("used", ir.DataType.INT64, (1,))
    linears = LinearLowering(draft, quant)
    linears.declare_code()
    leading = draft.op("Shape", x, start=0, end=2)
    draft.output(linears.emit(SPEC, x, leading, used), "y", FLOAT, ("rows", "tokens", OUT))
    values = feed()["x"][:, :rows]
    own = feed() | {"x": values, "used": np.array([min(rows, 1)])}
    found = run(draft, own, model, tmp_path)["y"]
    assert found.shape == (4, rows, OUT)
    expected = product(model, tmp_path / "all", quant)[:, :rows]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_plan_knows_the_size_of_a_tile():
    assert TILE_NUMBERS == tiles.NUMBERS
