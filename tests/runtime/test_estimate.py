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
    block=10_000_000,
)


def test_enough() -> None:
    assert ESTIMATE.total == 10**9
    assert ESTIMATE.check(10**9) is None


def test_too_small_for_all_blocks_is_streamed() -> None:
    """500 MB of weights, 10 MB a block: 520 MB are enough."""
    assert not ESTIMATE.must_stream(10**9)
    assert ESTIMATE.peak(10**9) == 10**9
    for budget in (999_999_999, 520_000_000):
        assert ESTIMATE.must_stream(budget)
        assert ESTIMATE.peak(budget) == 520_000_000
        assert "streamed" in str(ESTIMATE.check(budget))


def test_close_is_a_warning() -> None:
    warning = ESTIMATE.check(450_000_000)
    assert warning is not None
    assert "450 MB" in warning


def test_plainly_too_small_is_refused_with_what_is_enough() -> None:
    with pytest.raises(DoesNotFitError, match="400 MB") as caught:
        ESTIMATE.check(400_000_000)
    named = str(caught.value).split("give --budget '")[1].split("'")[0]
    assert ESTIMATE.peak(parse_size(named)) <= parse_size(named)
    assert "smaller model" in str(caught.value)


def test_a_model_of_one_block_is_not_counted_twice() -> None:
    one = Estimate(10**8, 10**8, 10**8, 10**8, 10**8, block=10**8)
    assert one.streamed == one.total


def test_advice_follows_the_largest_part() -> None:
    long_rows = Estimate(10**8, 10**8, 10**8, 10**9, 10**6, 10**6)
    with pytest.raises(DoesNotFitError, match="--max-seq"):
        long_rows.check(10**8)
