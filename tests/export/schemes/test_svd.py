"""The truncated SVD of a checkpoint's weight against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.schemes import svd
from edgezo_export.schemes.svd import truncated_svd
from edgezo_runtime.errors import EdgezoError


class Matrix:
    """A checkpoint of one matrix."""

    def __init__(self, value):
        self.value = value

    def shape(self, name):
        return self.value.shape

    def read(self, name):
        return self.value

    def read_rows(self, name, start, stop):
        return self.value[start:stop]


def decaying(rows: int, columns: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    size = min(rows, columns)
    left = np.linalg.qr(generator.standard_normal((rows, size)))[0]
    right = np.linalg.qr(generator.standard_normal((columns, size)))[0]
    return (left * 0.8 ** np.arange(size) @ right.T).astype(np.float32)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("shape", [(70, 40), (40, 70), (50, 50)])
def test_against_numpy(monkeypatch, shape, exact):
    monkeypatch.setattr(svd, "_EXACT_UP_TO", 1024 if exact else 0)
    monkeypatch.setattr(svd, "_STRIP_BYTES", 8 * shape[1] * 9)
    w = decaying(*shape)
    u, s, v = truncated_svd("w", Matrix(w), 5, seed=0)
    expected_u, expected_s, expected_vt = np.linalg.svd(w.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(s, expected_s[:5], rtol=1e-5)
    best = (expected_u[:, :5] * expected_s[:5]) @ expected_vt[:5]
    np.testing.assert_allclose((u * s) @ v.T, best, atol=1e-5)
    np.testing.assert_allclose(u.T @ u, np.eye(5), atol=1e-5)
    largest = v[np.abs(v).argmax(axis=0), np.arange(5)]
    assert (largest > 0).all()
    again = truncated_svd("w", Matrix(w), 5, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip(again, (u, s, v), strict=True))


def test_numbers_that_are_not_finite():
    w = decaying(6, 5)
    w[3, 2] = np.nan
    with pytest.raises(EdgezoError, match="'w': has numbers that are not finite"):
        truncated_svd("w", Matrix(w), 2, seed=0)
