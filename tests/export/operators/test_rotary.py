"""Rotary embedding against its formula."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.rotary import emit_rotary, emit_rotary_at, emit_rotary_cache
from tests.export.graph_runner import run

FLOAT = ir.DataType.FLOAT
X = np.random.default_rng(0).normal(size=(2, 3, 5, 8)).astype(np.float32)
ANGLES = np.outer(np.arange(9), [1, 0.5, 0.25, 0.1]).astype(np.float32)  # (positions, D/2)


def rotated(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Pairs (x_i, x_{i + D/2}) turned by angles (..., S, D/2)."""
    left, right = np.split(x, 2, axis=-1)
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)


def test_the_traced_form():
    draft = GraphBuilder("rotary")
    x = draft.input("x", FLOAT, ("r", 3, "s", 8))
    cos, sin = (draft.input(name, FLOAT, (1, "s", 8)) for name in ("cos", "sin"))
    draft.output(emit_rotary(draft, x, cos, sin, 8, 8), "y", FLOAT, ("r", 3, "s", 8))
    tables = np.concatenate([ANGLES[:5]] * 2, axis=-1)[None]
    found = run(draft, {"x": X, "cos": np.cos(tables), "sin": np.sin(tables)})["y"]
    np.testing.assert_allclose(found, rotated(X, ANGLES[:5]), atol=1e-6)


def test_rotation_at_positions_of_each_row():
    draft = GraphBuilder("rotary")
    x = draft.input("x", FLOAT, ("r", 3, "s", 8))
    cos, sin = (draft.input(name, FLOAT, ("t", 4)) for name in ("cos", "sin"))
    positions = draft.input("positions", ir.DataType.INT64, ("r", "s"))
    draft.output(emit_rotary_at(draft, x, (cos, sin), positions), "y", FLOAT, ("r", 3, "s", 8))
    places = np.array([[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]])
    feed = {"x": X, "cos": np.cos(ANGLES), "sin": np.sin(ANGLES), "positions": places}
    expected = rotated(X, ANGLES[places][:, None])
    np.testing.assert_allclose(run(draft, feed)["y"], expected, atol=1e-6)


@pytest.mark.parametrize("at", [False, True])
def test_the_first_numbers_of_each_head(at):
    """Four of eight; the others stay."""
    draft = GraphBuilder("rotary")
    x = draft.input("x", FLOAT, ("r", 3, "s", 8))
    cos, sin = (
        draft.input(name, FLOAT, ("t", 2) if at else (1, "t", 4)) for name in ("cos", "sin")
    )
    angles = ANGLES[:5, :2]
    if at:
        places = draft.constant(np.tile(np.arange(5), (2, 1)))
        y = emit_rotary_at(draft, x, (cos, sin), places, partial=True)
    else:
        y = emit_rotary(draft, x, cos, sin, 8, 4)
    draft.output(y, "y", FLOAT, ("r", 3, "s", 8))
    tables = angles if at else np.concatenate([angles] * 2, axis=-1)[None]
    found = run(draft, {"x": X, "cos": np.cos(tables), "sin": np.sin(tables)})["y"]
    np.testing.assert_allclose(found[..., :4], rotated(X[..., :4], angles), atol=1e-6)
    np.testing.assert_array_equal(found[..., 4:], X[..., 4:])


def test_a_table_of_unknown_width_is_refused():
    draft = GraphBuilder("rotary")
    x = draft.input("x", FLOAT, ("r", 3, "s", 8))
    table = draft.input("cos", FLOAT, ("t", "w"))
    with pytest.raises(UnsupportedModelError, match="unknown width"):
        emit_rotary_at(draft, x, (table, table), x)


def test_half_of_a_table_is_enough():
    draft = GraphBuilder("rotary")
    table = draft.input("table", FLOAT, (1, "s", 8))
    draft.output(emit_rotary_cache(draft, table, 8), "half", FLOAT, ("s", 4))
    whole = np.concatenate([ANGLES] * 2, axis=-1)[None]
    np.testing.assert_array_equal(run(draft, {"table": whole})["half"], ANGLES)
    draft = GraphBuilder("rotary")
    table = draft.input("table", FLOAT, (1, "s", 4))
    draft.output(emit_rotary_cache(draft, table, 4, half=True), "half", FLOAT, ("s", 4))
    np.testing.assert_array_equal(run(draft, {"table": ANGLES[None]})["half"], ANGLES)
