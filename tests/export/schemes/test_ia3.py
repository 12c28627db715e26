"""Gains: places and what they do."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.schemes.ia3 import Ia3
from edgezo_runtime.errors import UsageError
from tests.export.scheme_places import LINEAR, NORM, applied, draw, facts, initial, place


def test_keys_and_values_are_found_by_name():
    assert Ia3().resolve(facts()).targets == ("k_proj", "v_proj")
    assert Ia3().resolve(facts(layers=("c_attn", "c_proj"))).targets == ("c_attn",)
    with pytest.raises(UsageError, match="cannot tell which layers compute keys and values"):
        Ia3().resolve(facts(layers=("k_proj", "odd")))


@pytest.mark.parametrize(
    ("where", "stage", "size"),
    [
        (place(LINEAR, module="m.1.k_proj"), "output", 6),
        (place(LINEAR, ends="mlp"), "input", 8),
    ],
)
def test_places_and_initial_gains(where, stage, size):
    (edit,) = Ia3(("k_proj", "v_proj")).edits(where)
    assert edit.stage == stage
    (gain,) = initial(edit)
    np.testing.assert_array_equal(gain, np.ones(size, np.float32))


def test_other_places_have_none():
    scheme = Ia3(("k_proj", "v_proj"))
    assert scheme.edits(LINEAR) == scheme.edits(NORM) == ()


def test_a_gain_of_one_changes_no_bit_and_acts_where_it_should():
    (edit,) = Ia3(("q_proj",)).edits(LINEAR)
    y, gain = draw(2, 3, 6), draw(1, 6)
    assert np.array_equal(applied(edit, y, y, [np.ones((1, 6), np.float32)]), y)
    active = np.array([[1, 1, 0], [0, 0, 1]], np.float32)
    expected = np.where(active[..., None] == 1, y * gain[0], y)
    np.testing.assert_allclose(applied(edit, y, y, [gain], active), expected, atol=1e-6)
