"""Keys and values in front of attention."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.schemes.prefix import Prefix
from edgezo_export.schemes.scheme import Origin
from edgezo_runtime.errors import UsageError
from tests.export.scheme_places import ATTENTION, LINEAR, applied, draw, facts, place

SCHEME = Prefix(virtual_tokens=3).resolve(facts())


def test_initial_values_are_those_of_the_chosen_tokens():
    asked = []

    def keys_values(block: int, tokens: tuple[int, ...]):
        asked.append((block, tokens))
        return draw(2, 3, 4), draw(2, 3, 4, seed=1)

    keys, values = SCHEME.edits(ATTENTION)
    origin = Origin(None, keys_values)
    np.testing.assert_array_equal(next(iter(keys.values(origin))), draw(2, 3, 4))
    np.testing.assert_array_equal(next(iter(values.values(origin))), draw(2, 3, 4, seed=1))
    assert asked == [(1, SCHEME.tokens)] * 2
    assert [edit.stage for edit in (keys, values)] == ["key", "value"]


def test_every_row_has_its_copy_in_front():
    keys, _ = SCHEME.edits(ATTENTION)
    earlier, copies = draw(4, 2, 5, 4), draw(2, 2, 3, 4)
    found = applied(keys, earlier, earlier, [copies])
    expected = np.concatenate([copies[[0, 0, 1, 1]], earlier], axis=2)
    np.testing.assert_array_equal(found, expected)


def test_attention_that_cannot_continue_is_refused():
    assert SCHEME.edits(LINEAR) == ()
    with pytest.raises(UsageError, match=r"`trainable` prefix: m\.1 of this llama model cannot"):
        SCHEME.edits(place(ATTENTION, continues=False))
