"""Tensor-train adapters against the matrices that their cores make."""

from __future__ import annotations

import numpy as np

from edgezo_export.schemes.tt import TensorTrain
from tests.export.scheme_places import LINEAR, applied, draw, initial, place

WHERE = place(LINEAR, in_features=6, out_features=6, ends="mlp")


def matrix(cores: list[np.ndarray], rows: int) -> np.ndarray:
    """The whole matrix of a tensor train."""
    result = cores[0]
    for core in cores[1:]:
        result = np.tensordot(result, core, 1)
    return result.reshape(rows, -1)


def test_an_adapter_is_that_of_whole_matrices():
    scheme = TensorTrain(rank=2, bottleneck=4)
    (edit,) = scheme.edits(WHERE)
    cores = [draw(*info.shape, seed=index) for index, info in enumerate(edit.tensors)]
    down = [c for c, info in zip(cores, edit.tensors, strict=True) if info.role == "tt_down"]
    y = draw(2, 3, 6)
    found = applied(edit, y, y, [core[None] for core in cores])
    expected = y + np.tanh(y @ matrix(down, 6)) @ matrix(cores[len(down) :], 4)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_adapter_begins_as_nothing():
    (edit,) = TensorTrain().edits(WHERE)
    *rest, last = initial(edit)
    assert not last.any()
    assert all(core.any() for core in rest)
    assert TensorTrain().edits(LINEAR) == ()  # behind attention and MLP only
