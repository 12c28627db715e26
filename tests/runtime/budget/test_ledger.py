"""The ledger's parts against pages counted by hand, and the sampler against an allocation."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgezo_runtime.budget.ledger import (
    FAULT_BYTES,
    MEANING,
    Ledger,
    PeakSampler,
    _windows,
    budget_for,
    planned_bytes,
)
from edgezo_runtime.bundle.weights import StoredTensor

MIB = 2**20
ROW = 1024


def matrix(rows: int, offset: int) -> StoredTensor:
    return StoredTensor(np.dtype(np.uint8), (rows, ROW), offset, rows * ROW)


def test_total_and_parts() -> None:
    ledger = Ledger(1, 2, 3, 4, 5, 6, 7, 8, start=10)
    assert ledger.total == 36
    assert Ledger(1, 2, 3, 4, 5, 6, 7, 8, start=100).total == 100
    assert set(ledger.parts()) == set(MEANING)


@pytest.mark.parametrize("total", [1, 24, 25, 960, 999, 10**9 + 7])
def test_a_budget_is_a_twenty_fifth_more(total: int) -> None:
    assert planned_bytes(2500) == 2400
    assert budget_for(2400) == 2500
    assert planned_bytes(budget_for(total)) >= total > planned_bytes(budget_for(total) - 2)


def test_rows_in_one_window_are_one_fault() -> None:
    tokens = np.array([0, 1, 63])
    assert _windows([matrix(1000, 0)], 1000, tokens) == {0}
    assert _windows([matrix(1000, 0)], 1000, np.array([63, 64])) == {0, 1}


def test_a_row_on_an_edge_touches_two_windows() -> None:
    assert _windows([matrix(1000, 512)], 1000, np.array([63])) == {0, 1}


def test_long_rows_touch_every_window_they_cover() -> None:
    wide = StoredTensor(np.dtype(np.uint8), (4, 3 * FAULT_BYTES), 0, 12 * FAULT_BYTES)
    assert _windows([wide], 4, np.array([1])) == {3, 4, 5}


def test_all_tokens_and_other_tensors_are_whole() -> None:
    assert _windows([matrix(128, 0)], 128, None) == {0, 1}
    assert _windows([matrix(128, 0)], 1000, np.array([0])) == {0, 1}
    assert _windows([matrix(64, 0), matrix(64, 64 * ROW)], 64, np.array([0])) == {0, 1}


def test_the_sampler_sees_what_comes_and_goes() -> None:
    with PeakSampler() as sampler:
        before = sampler.peak
        block = np.ones(64 * MIB, np.uint8)
        time.sleep(0.05)
        del block
    assert 60 * MIB < sampler.peak - before < 80 * MIB


def test_the_sampler_keeps_the_largest() -> None:
    looks = iter([1, 5, 2])
    with PeakSampler(lambda: next(looks, 3)) as sampler:
        time.sleep(0.05)
    assert sampler.peak == 5
