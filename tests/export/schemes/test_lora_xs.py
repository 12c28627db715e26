"""Factors from the singular vectors of a weight."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.schemes.lora_xs import LoraXs
from edgezo_runtime.errors import UsageError
from tests.export.scheme_places import LINEAR, applied, draw, facts, initial, place


@pytest.mark.parametrize("in_out", [True, False])
def test_factors_span_the_weight(in_out):
    (edit,) = LoraXs(rank=6, targets=("q_proj",)).edits(place(LINEAR, in_out=in_out))
    stored = draw(8, 6) if in_out else draw(6, 8)
    a, r, b = initial(edit, **{"m__1__q_proj__weight": stored})
    assert not r.any()
    np.testing.assert_allclose(b @ a, stored.T if in_out else stored, atol=1e-5)
    assert [info.trains for info in edit.tensors] == [False, True, False]
    x, y = draw(2, 3, 8), draw(2, 3, 6)
    assert np.array_equal(applied(edit, x, y, [a[None], r[None], b[None]]), y)
    whole = applied(edit, x, y, [a[None], np.eye(6, dtype=np.float32)[None], b[None]])
    np.testing.assert_allclose(whole, y + x @ (b @ a).T, atol=1e-5)


def test_a_rank_beyond_the_weight():
    with pytest.raises(UsageError, match=r"`rank` 7: m\.1\.q_proj is 6 x 8"):
        LoraXs(rank=7, targets=("q_proj",)).edits(LINEAR)


def test_the_last_layer_of_the_mlp_is_the_default():
    assert LoraXs().resolve(facts()).targets == ("down_proj",)
    assert LoraXs(targets=("q_proj",)).resolve(facts()).targets == ("q_proj",)
