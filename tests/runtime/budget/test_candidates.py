"""The ways to run: which there are, what they cost, and how they read."""

from __future__ import annotations

import pytest

from edgezo_runtime.budget.candidates import (
    CHUNK_COST,
    STREAM_COST,
    WAVE_COST,
    Choice,
    enumerate_choices,
    spread,
)
from edgezo_runtime.engine.chunks import Limits

SIZES = (256, 128, 64, 32, 16)


def test_every_number_of_workers_and_size_of_chunks() -> None:
    found = list(enumerate_choices(6, 10, levels=1))
    assert [
        (choice.limits.workers, choice.limits.chunk_tokens, len(choice.streamed))
        for choice in found
    ] == [(workers, size, count) for workers in (6, 3, 1) for size in SIZES for count in (0, 10)]


def test_levels_are_even_shares_of_the_blocks() -> None:
    found = enumerate_choices(1, 30, levels=8)
    counts = [len(choice.streamed) for choice, _ in zip(found, range(9), strict=False)]
    assert counts == [0, 4, 8, 12, 15, 19, 23, 27, 30]


def test_costs_are_products_of_measured_factors() -> None:
    found = enumerate_choices(4, 2, levels=2, fetches=lambda limits: 256 // limits.chunk_tokens)
    costs = {(*choice.shape, len(choice.streamed)): choice.cost for choice in found}
    assert costs[Limits(4), False, 0] == 1.0
    assert costs[Limits(1), False, 0] == 4.0
    assert costs[Limits(4), True, 1] == pytest.approx(1.02 + 0.03 / 2)
    half = Limits(2).smaller()
    assert half is not None
    assert costs[half, False, 0] == pytest.approx(2 * 1.03)
    assert costs[half, True, 2] == pytest.approx(2 * 1.03 * (1.02 + 2 * 0.03))


def test_the_fastest_is_resident_with_all_workers() -> None:
    found = list(enumerate_choices(4, 10, levels=8, fetches=lambda limits: 3))
    assert (
        min(found, key=lambda choice: choice.cost) == found[0] == Choice(Limits(4), frozenset(), 1)
    )
    assert sorted(CHUNK_COST, reverse=True) == sorted(CHUNK_COST, key=CHUNK_COST.__getitem__)
    assert WAVE_COST > 1
    assert STREAM_COST > 0


def test_streamed_blocks_are_spread() -> None:
    assert spread(10, 10) == frozenset(range(10))
    assert spread(9, 3) == {0, 4, 8}
    assert spread(30, 2) == {0, 29}
    assert spread(1, 1) == {0}
    assert all(len(spread(30, count)) == count for count in range(1, 31))


def test_choices_of_one_shape_have_passes_of_one_size() -> None:
    few, many = (Choice(Limits(2), frozenset(range(n)), 1.0) for n in (1, 7))
    assert few.shape == many.shape == (Limits(2), True)
    assert Choice(Limits(2), frozenset(), 1.0).shape != few.shape


def test_words() -> None:
    assert Choice(Limits(2), frozenset(), 1.0).words(30) == (
        "all 30 blocks resident, 2 workers, chunks of 256 tokens"
    )
    assert Choice(Limits(1, 16), frozenset({1, 2}), 1.0).words(30) == (
        "28 of 30 blocks resident, 1 worker, chunks of 16 tokens"
    )
