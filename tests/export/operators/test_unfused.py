"""The table of expansions."""

from __future__ import annotations

from edgezo_export.operators.unfused import UNFUSED
from tests.export.operators import test_activation, test_norm


def test_every_expansion_is_tested():
    cases = {name.split()[0] for name in (*test_activation.CASES, *test_norm.CASES)}
    attentions = {"GroupQueryAttention", "MultiHeadAttention"}  # files of their own
    assert cases | attentions == UNFUSED.keys()
