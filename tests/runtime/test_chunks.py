"""Limits, and the stretches of blocks that they allow."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from edgezo_runtime.chunks import Limits
from edgezo_runtime.errors import UsageError

LIMITS = Limits(2, fetch_bytes=10)


@pytest.mark.parametrize("size", [1, 4, 5, 7, 10, 11, 40])
@pytest.mark.parametrize("streamed", [set(), {0}, {3}, {0, 2, 4, 6}, set(range(7))])
@pytest.mark.parametrize("first", [0, 1, 6])
def test_stretches_cover_the_blocks_and_hold_no_more_than_they_may(size, streamed, first) -> None:
    stretches = list(LIMITS.stretches([size] * 7, streamed, first))
    assert [index for stretch in stretches for index in stretch] == list(range(first, 7))
    for stretch in stretches:
        assert size * len(streamed.intersection(stretch)) <= max(10, size)
    for one, other in itertools.pairwise(stretches):
        assert size * len(streamed.intersection([*one, other[0]])) > 10


def test_everything_resident_is_one_stretch() -> None:
    assert list(LIMITS.stretches([100] * 7, set())) == [range(7)]


def test_nothing_left() -> None:
    assert list(LIMITS.stretches([1] * 3, set(), 3)) == []


def test_smaller_ends() -> None:
    limits: Limits | None = Limits(4)
    sizes = []
    while limits is not None:
        sizes.append(limits.chunk_tokens)
        limits = limits.smaller()
    assert sizes == [256, 128, 64, 32, 16]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_limits_are_checked(name) -> None:
    with pytest.raises(UsageError, match=f"{name} 0: must be 1 or more"):
        dataclasses.replace(Limits(1), **{name: 0}).check()
