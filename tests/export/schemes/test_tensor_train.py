"""Factors and shapes of tensor trains."""

from __future__ import annotations

import math

import pytest

from edgezo_export.schemes.tensor_train import core_shapes, factorize


@pytest.mark.parametrize(
    ("size", "factors"),
    [
        (1, (1,)),
        (12, (12,)),
        (64, (8, 8)),
        (576, (8, 8, 9)),
        (768, (8, 8, 12)),
        (4096, (16, 16, 16)),
        (97, (97,)),
        (2 * 97, (2, 97)),
    ],
)
def test_factors(size, factors):
    assert factorize(size) == factors


def test_every_size_is_the_product_of_its_factors():
    for size in range(1, 700):
        assert math.prod(factorize(size)) == size


def test_shapes_chain():
    shapes = core_shapes(576, 64, 5)
    assert shapes == ((1, 8, 5), (5, 8, 5), (5, 9, 5), (5, 8, 5), (5, 8, 1))
