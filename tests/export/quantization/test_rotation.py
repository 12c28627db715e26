"""The rotation in front of int8 layers."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.quantization.rotation import block_size, hadamard, rotate_rows


@pytest.mark.parametrize("size", [1, 4, 16, 64])
def test_the_matrix_is_exactly_its_own_inverse(size):
    matrix = hadamard(size)
    assert matrix.dtype == np.float32
    assert np.array_equal(matrix, matrix.T)
    assert np.array_equal(matrix @ matrix, np.eye(size, dtype=np.float32))
    assert np.array_equal(np.abs(matrix), np.full((size, size), size**-0.5, np.float32))


@pytest.mark.parametrize(
    ("width", "size"), [(576, 64), (64, 64), (1536, 64), (48, 16), (20, 4), (6, 1), (7, 1)]
)
def test_the_largest_block_that_fits(width, size):
    assert block_size(width) == size


@pytest.mark.parametrize("width", [128, 48, 20, 7])
def test_products_stay(width):
    generator = np.random.default_rng(0)
    x, w = generator.normal(size=(2, 5, width)).astype(np.float32)
    np.testing.assert_allclose(rotate_rows(x) @ rotate_rows(w).T, x @ w.T, rtol=1e-4, atol=1e-4)


def test_an_outlier_is_spread_over_its_block():
    x = np.zeros((1, 128), np.float32)
    x[0, 70] = 8.0
    assert np.array_equal(np.abs(rotate_rows(x))[0], np.repeat(np.float32([0, 1]), 64))
