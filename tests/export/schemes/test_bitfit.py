"""Biases and norms: places, initial values, and what they add."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.schemes.bitfit import BitFit
from tests.export.scheme_places import ENTRY, LINEAR, NORM, applied, draw, initial, place


@pytest.mark.parametrize(
    ("scheme", "where", "roles"),
    [
        (BitFit(), LINEAR, []),
        (BitFit(), place(LINEAR, bias=True), ["added_bias"]),
        (BitFit("all"), LINEAR, ["added_bias"]),
        (BitFit(), NORM, ["norm_weight"]),
        (BitFit(), place(NORM, bias=True), ["norm_weight", "norm_bias"]),
        (BitFit("all"), ENTRY, []),
    ],
)
def test_places(scheme, where, roles):
    edits = scheme.edits(where)
    assert [info.role for edit in edits for info in edit.tensors] == roles
    assert all(not value.any() for edit in edits for value in initial(edit))


def test_a_norm_gets_a_weight_and_a_bias_per_copy():
    (edit,) = BitFit().edits(place(NORM, bias=True))
    normed, y, weight, bias = draw(2, 3, 8), draw(2, 3, 8, seed=1), draw(2, 8), draw(2, 8, seed=1)
    active = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    found = applied(edit, normed, y, [weight, bias], active)
    expected = y + (normed * weight[:, None] + bias[:, None]) * active[..., None]
    np.testing.assert_allclose(found, expected, atol=1e-6)
