"""Copies that are made once per tensor, whatever rows are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.engine.params import SharedParams
from edgezo_runtime.generation.copy_cache import CopyCache, TextParams


class OwnCopies:
    """Every text's tensor is its number."""

    private = True

    def __init__(self) -> None:
        self.made: list[str] = []

    def copies(self, name: str, rows: np.ndarray) -> np.ndarray:
        self.made.append(name)
        return np.repeat(rows.astype(np.float32)[:, None], 3, axis=1)


def test_copies_of_texts_are_made_once() -> None:
    params = OwnCopies()
    cache = CopyCache(params, np.array([2, 5, 9]))
    assert cache.private
    for rows in ([9, 2], [5], [2, 2, 9]):
        expected = np.repeat(np.array(rows, np.float32)[:, None], 3, axis=1)
        np.testing.assert_array_equal(cache.copies("a", np.array(rows)), expected)
    cache.copies("b", np.array([5]))
    assert params.made == ["a", "b"]


def test_a_shared_copy_stays_one() -> None:
    values = {"a": np.ones((2, 3), np.float32)}
    cache = CopyCache(SharedParams(values), np.array([2, 5]))
    assert not cache.private
    assert cache.copies("a", np.array([5, 5, 2])).shape == (1, 2, 3)


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 2], [1]])
def test_rows_have_the_copies_of_their_texts(rows: list[int]) -> None:
    """The second and fourth texts have ended."""
    numbers = np.array([0, 2, 4])
    params = TextParams(OwnCopies(), numbers)
    assert params.private
    found = params.copies("a", np.array(rows))
    assert found[:, 0].tolist() == numbers[rows].tolist()
