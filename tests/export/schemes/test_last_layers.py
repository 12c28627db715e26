"""Weights of the last blocks."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.schemes.last_layers import LastLayers
from edgezo_runtime.errors import UsageError
from tests.export.scheme_places import LINEAR, NORM, applied, draw, facts, initial, place


def test_the_last_blocks_are_counted_from_the_end():
    scheme = LastLayers(3).resolve(facts())
    assert scheme.first == 1
    assert scheme.edits(LINEAR)
    assert scheme.edits(place(LINEAR, block=0)) == scheme.edits(NORM) == ()
    with pytest.raises(UsageError, match="`last_layers` 5: the model has 4 blocks"):
        LastLayers(5).resolve(facts())


@pytest.mark.parametrize("in_out", [True, False])
def test_weights_begin_as_stored_and_replace_the_product(in_out):
    (edit,) = LastLayers(1, 0).edits(place(LINEAR, in_out=in_out))
    stored = draw(8, 6) if in_out else draw(6, 8)
    (weight,) = initial(edit, **{"m__1__q_proj__weight": stored})
    np.testing.assert_array_equal(weight, stored if in_out else stored.T)
    x = draw(4, 3, 8)
    weights = np.stack([weight, 2 * weight])
    found = applied(edit, x, draw(4, 3, 6), list(weights[None]))
    expected = x @ weight * np.array([1, 1, 2, 2], np.float32)[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)
