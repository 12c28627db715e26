"""Copies of trainables over rows."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.schemes.lora import Lora
from edgezo_export.schemes.site import product
from tests.export.graph_runner import run
from tests.export.scheme_places import LINEAR, applied, draw


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("copies", [1, 2, 4])
def test_every_group_of_rows_has_its_copy(copies, rank):
    (edit,) = Lora(rank=rank, alpha=3.0, targets=("q_proj",)).edits(LINEAR)
    x, y, a, b = draw(4, 3, 8), draw(4, 3, 6), draw(copies, rank, 8), draw(copies, 6, rank)
    active = np.array([[1, 1, 0]] * 3 + [[0, 0, 0]], np.float32)
    found = applied(edit, x, y, [a, b], active)
    own = np.arange(4) * copies // 4
    change = np.einsum("rsi,rki,rok->rso", x, a[own], b[own]) * 3.0 / rank
    np.testing.assert_allclose(found, y + change * active[..., None], atol=1e-5)
    assert np.array_equal(found[3], y[3])


@pytest.mark.parametrize("tokens", [4, 5, 6, 7])
def test_a_single_column_rounds_alike_for_any_number_of_tokens(tokens):
    """Pins results of a token that changed with the number of tokens behind it."""
    x, columns = draw(1, 8, 65), draw(1, 65, 1)
    part, whole = (times(x[:, :count], columns) for count in (tokens, 8))
    assert np.array_equal(part, whole[:, :tokens])


def times(x: np.ndarray, columns: np.ndarray) -> np.ndarray:
    draft = GraphBuilder("product")
    own = [
        draft.input("x", ir.DataType.FLOAT, (1, "n", 65)),
        draft.input("c", ir.DataType.FLOAT, (1, 65, 1)),
    ]
    y = product(draft, *own, alone=True)
    draft.output(y, "y", ir.DataType.FLOAT, (1, "n", 1))
    return run(draft, {"x": x, "c": columns})["y"]
