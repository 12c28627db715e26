"""The estimate: what its parts follow, and what a budget is compared with."""

from __future__ import annotations

import pytest

from edgezo_runtime.errors import DoesNotFitError
from edgezo_runtime.estimate import Estimate
from edgezo_runtime.sizes import parse_size

ESTIMATE = Estimate(
    process=100_000_000,
    weights=500_000_000,
    vocabulary=300_000_000,
    activations=60_000_000,
    trainables=40_000_000,
)


def test_enough() -> None:
    assert ESTIMATE.total == 10**9
    assert ESTIMATE.check(10**9) is None


def test_close_is_a_warning() -> None:
    warning = ESTIMATE.check(900_000_000)
    assert warning is not None
    assert "900 MB" in warning


def test_plainly_too_small_is_refused_with_what_is_enough() -> None:
    with pytest.raises(DoesNotFitError, match="500 MB") as caught:
        ESTIMATE.check(500_000_000)
    named = str(caught.value).split("give --budget '")[1].split("'")[0]
    assert ESTIMATE.check(parse_size(named)) is None
    assert "smaller model" in str(caught.value)


def test_advice_follows_the_largest_part() -> None:
    long_rows = Estimate(10**8, 10**8, 10**8, 10**9, 10**6)
    with pytest.raises(DoesNotFitError, match="--max-seq"):
        long_rows.check(10**8)
