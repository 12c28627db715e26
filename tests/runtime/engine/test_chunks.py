"""Limits, and the stretches of blocks that they allow."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.answer_states import KeyValueLayout
from edgezo_runtime.engine.chunks import COPY_BYTES, Cutter, Limits
from edgezo_runtime.errors import UsageError
from tests.runtime.tiny_sets import random_set

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


@pytest.mark.parametrize(("share", "most"), [(0, 8), (100, 8), (4, 2), (2, 1), (1, 1)])
def test_copies_of_large_trainables_bound_a_chunk(share: int, most: int) -> None:
    """A pair of copies for every sequence: a chunk holds `share` copies of a block's trainables."""
    examples = random_set("labels", (4,) * 8, 0)
    batch = make_batch(examples, range(8))
    copy_bytes = COPY_BYTES // share if share else 0
    cutter = Cutter(Limits(1, chunk_tokens=4096), 64, 8, copy_bytes)
    layout = KeyValueLayout({0: 1}, {0: 4}, {0: 0}, 8)
    for chunks in (cutter.chunks(batch, 2), cutter.answers(batch, 2, layout)):
        sizes = [chunk.scored.stop - chunk.scored.start for chunk in chunks]
        assert max(sizes) == most
        assert sum(sizes) == 8
