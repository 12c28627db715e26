"""Stored weights made ready for a product, against numpy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.frozen_weights import (
    group_matrix,
    half_matrix,
    int8_matrix,
    reordered_rotation,
    unpacked_matrix,
)
from edgezo_export.operators.layers import LinearSpec
from edgezo_export.operators.tiles import Tile
from edgezo_export.quantization.group_codes import GroupCodes, round_groups
from edgezo_export.quantization.rotation import block_size, hadamard, rotate_rows
from tests.export.graph_runner import run

OUT = 12
WHOLE = Tile(0, OUT, whole=True)


def spec(width: int) -> LinearSpec:
    return LinearSpec(("m.q",), (OUT,), width, False, ())


def unpacked(codes: GroupCodes) -> np.ndarray:
    """The int8 matrix that the graph makes of stored codes."""
    width = codes.codes.shape[1]
    draft = GraphBuilder("unpack", "m.")
    matrix = unpacked_matrix(draft, spec(width), width // codes.multipliers.shape[1])
    draft.output(matrix.tile(WHOLE), "w", ir.DataType.INT8, (width, len(codes.scales)))
    session = onnxruntime.InferenceSession(draft.serialize(), providers=["CPUExecutionProvider"])
    feed = {"q.weight": codes.packed(), "q.multiplier": codes.multipliers, "q.scale": codes.scales}
    return session.run(["w"], feed)[0]


def unordered(matrix: np.ndarray) -> np.ndarray:
    """Undo the order of an unpacked matrix: of 16 inputs the even ones come first."""
    blocks = matrix.reshape(-1, 2, 8, matrix.shape[1])
    return blocks.transpose(0, 2, 1, 3).reshape(matrix.shape)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_unpacked_levels(size):
    generator = np.random.default_rng(0)
    codes = GroupCodes(
        generator.integers(-8, 8, (OUT, 192), dtype=np.int8),
        generator.integers(-127, 128, (OUT, 192 // size), dtype=np.int8),
        np.ones(OUT, np.float32),
    )
    assert np.array_equal(unordered(unpacked(codes)), codes.levels().T)


def test_every_byte_and_multiplier():
    """All 256 pairs of codes with all 255 multipliers."""
    pairs = np.stack(np.meshgrid(np.arange(-8, 8), np.arange(-8, 8)), -1).reshape(1, -1)
    groups = pairs.shape[1] // 16
    rows = [np.full((1, groups), m, np.int8) for m in range(-127, 128)][::21]
    multipliers = np.concatenate(rows)[:OUT]
    codes = np.repeat(pairs.astype(np.int8), len(multipliers), axis=0)
    made = GroupCodes(codes, multipliers, np.ones(len(multipliers), np.float32))
    assert len(multipliers) == OUT
    assert np.array_equal(unordered(unpacked(made)), made.levels().T)


@pytest.mark.parametrize("width", [64, 48, 192])
def test_the_rotation_orders_as_the_matrix(width):
    """(x R P)(P' R W) is x W: rows of an unpacked matrix go with the columns of the rotation."""
    size = block_size(width)
    plain, found = hadamard(size), reordered_rotation(width)
    assert np.array_equal(unordered(found.T).T, plain)


def linear(width: int) -> torch.nn.ModuleDict:
    torch.manual_seed(0)
    layer = torch.nn.Linear(width, OUT, bias=False).requires_grad_(False)
    return torch.nn.ModuleDict({"m": torch.nn.ModuleDict({"q": layer})})


def test_codes_from_the_file(tmp_path):
    model = linear(64)
    draft = GraphBuilder("unpack", "m.")
    matrix = unpacked_matrix(draft, spec(64), 32)
    draft.output(matrix.tile(WHOLE), "w", ir.DataType.INT8, (64, OUT))
    draft.output(matrix.scale, "s", ir.DataType.FLOAT, (OUT,))
    found = run(draft, {}, model, tmp_path)
    expected = round_groups(rotate_rows(model["m"]["q"].weight.numpy()), 32)
    assert np.array_equal(unordered(found["w"]), expected.levels().T)
    np.testing.assert_array_equal(found["s"], expected.scales)


@pytest.mark.parametrize(
    ("make", "tolerance"),
    [(half_matrix, 2e-4), (lambda draft, own, tile: group_matrix(draft, own, 16, tile), 1e-3)],
    ids=["fp16", "w8"],
)
def test_float_values_of_stored_weights(tmp_path, make, tolerance):
    model = linear(48)
    draft = GraphBuilder("floats", "m.")
    draft.output(make(draft, spec(48), WHOLE), "w", ir.DataType.FLOAT, (48, OUT))
    found = run(draft, {}, model, tmp_path)["w"]
    np.testing.assert_allclose(found, model["m"]["q"].weight.numpy().T, atol=tolerance)


def test_int8_keeps_the_order():
    draft = GraphBuilder("int8", "m.")
    matrix = int8_matrix(draft, spec(64))
    assert matrix.rotation is not None
    assert np.array_equal(matrix.rotation, hadamard(64))
    assert int8_matrix(draft, spec(3)).rotation is None
