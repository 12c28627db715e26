"""The choice of real tokens."""

from __future__ import annotations

import pytest

from edgezo_export.schemes.virtual_tokens import choose_tokens
from edgezo_runtime.errors import UsageError
from tests.export.scheme_places import FACTS, facts


def test_tokens_are_ordinary_and_differ():
    chosen = choose_tokens(10, FACTS, 0)
    assert len(set(chosen)) == 10
    assert not {*chosen} & FACTS.special_ids
    assert all(token < FACTS.vocab_size for token in chosen)
    assert choose_tokens(10, FACTS, 0) == chosen != choose_tokens(10, FACTS, 1)


@pytest.mark.parametrize(("count", "changes"), [(0, {}), (11, {}), (6, {"vocab_size": 8})])
def test_a_count_that_does_not_fit(count, changes):
    with pytest.raises(UsageError, match=f"`virtual_tokens` {count}: must be 1 to"):
        choose_tokens(count, facts(**changes), 0)
