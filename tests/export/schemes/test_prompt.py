"""Virtual tokens at the entry of the first block."""

from __future__ import annotations

import numpy as np

from edgezo_export.schemes.prompt import Prompt
from tests.export.scheme_places import ENTRY, LINEAR, draw, facts, initial, place

SCHEME = Prompt(virtual_tokens=3).resolve(facts())


def test_embeddings_begin_as_those_of_real_tokens():
    assert SCHEME.embedding == "embed.weight"
    (edit,) = SCHEME.edits(ENTRY)
    table = draw(20, 8)
    trained, base = initial(edit, embed__weight=table)
    np.testing.assert_array_equal(trained, table[list(SCHEME.tokens)])
    np.testing.assert_array_equal(base, trained)
    assert [info.trains for info in edit.tensors] == [True, False]


def test_embeddings_of_another_width_begin_at_zero():
    (edit,) = SCHEME.edits(ENTRY)
    assert not any(value.any() for value in initial(edit, embed__weight=draw(20, 4)))


def test_only_the_first_block_is_changed():
    assert SCHEME.edits(place(ENTRY, block=1)) == SCHEME.edits(LINEAR) == ()
    assert SCHEME.info().tokens == SCHEME.tokens
