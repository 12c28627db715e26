"""Truncated singular value decomposition of a checkpoint's matrix, read in strips of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgezo_export.schemes.randomness import generator
from edgezo_export.sources.model_source import TensorReader
from edgezo_runtime.errors import EdgezoError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

_EXACT_UP_TO = 1024
"""Smaller dimension up to which the Gram matrix is decomposed, exactly."""

_OVERSAMPLING = 16
_ITERATIONS = 6
_STRIP_BYTES = 8 << 20


def truncated_svd(
    name: str, reader: TensorReader, rank: int, seed: int
) -> tuple[Float32, Float32, Float32]:
    """Compute the `rank` largest singular values of a matrix W (m, n), and their vectors.

    Matrices whose smaller dimension is at most 1,024 are decomposed exactly; larger ones by
    subspace iteration from a seeded random start (Halko, Martinsson, Tropp 2011, arXiv:0909.4061,
    algorithm 4.4). Signs are chosen so that the entry of largest magnitude of each right vector is
    positive.

    Args:
        name: of the matrix in the checkpoint.
        reader: the checkpoint.
        rank: at most the smaller dimension.
        seed: of the random start.
    Returns:
        U (m, rank), S (rank,) in descending order, V (n, rank), float32.
    Raises:
        EdgezoError: the matrix has numbers that are not finite.
    Memory:
        8 MiB of rows, and float64 matrices of the smaller dimension squared, or of (m + n) times
        the rank and a few more.
    """
    rows, columns = reader.shape(name)
    if min(rows, columns) <= _EXACT_UP_TO:
        right = _by_gram(name, reader, rank)
    else:
        right = _by_iteration(name, reader, rank, seed)
    # W V = U S: one more pass gives the values and left vectors of these right vectors.
    left = _times(name, reader, right)
    q, r = np.linalg.qr(left)
    u, s, vt = np.linalg.svd(r)
    u, v = q @ u, right @ vt.T
    signs = np.sign(v[np.abs(v).argmax(axis=0), np.arange(rank)])
    signs[signs == 0] = 1
    return (u * signs).astype(np.float32), s.astype(np.float32), (v * signs).astype(np.float32)


def _by_gram(name: str, reader: TensorReader, rank: int) -> Float64:
    """Compute right vectors from the eigenvectors of W^T W or W W^T, whichever is smaller."""
    rows, columns = reader.shape(name)
    if columns <= rows:
        gram = np.zeros((columns, columns))
        for _, strip in _strips(name, reader):
            gram += strip.T @ strip
        return np.linalg.eigh(gram)[1][:, ::-1][:, :rank]
    whole = np.concatenate([strip for _, strip in _strips(name, reader)])
    vectors = np.linalg.eigh(whole @ whole.T)[1][:, ::-1][:, :rank]
    return np.linalg.qr(whole.T @ vectors)[0]


def _by_iteration(name: str, reader: TensorReader, rank: int, seed: int) -> Float64:
    """Compute right vectors by repeated products of a subspace with W^T W."""
    rows, columns = reader.shape(name)
    size = min(rank + _OVERSAMPLING, rows, columns)
    basis = np.linalg.qr(generator(seed, name).standard_normal((columns, size)))[0]
    for _ in range(_ITERATIONS):
        again = np.zeros((columns, size))
        for _, strip in _strips(name, reader):
            again += strip.T @ (strip @ basis)
        basis = np.linalg.qr(again)[0]
    small = _times(name, reader, basis)
    _, _, vt = np.linalg.svd(small, full_matrices=False)
    result: Float64 = basis @ vt[:rank].T
    return result


def _times(name: str, reader: TensorReader, right: Float64) -> Float64:
    """Multiply W by a narrow matrix."""
    result = np.empty((reader.shape(name)[0], right.shape[1]))
    for start, strip in _strips(name, reader):
        result[start : start + len(strip)] = strip @ right
    return result


def _strips(name: str, reader: TensorReader) -> Iterator[tuple[int, Float64]]:
    rows, columns = reader.shape(name)
    step = max(1, _STRIP_BYTES // (8 * columns))
    for start in range(0, rows, step):
        strip = reader.read_rows(name, start, min(start + step, rows))
        if not np.isfinite(strip).all():
            raise EdgezoError(f"tensor {name!r}: has numbers that are not finite")
        yield start, strip.astype(np.float64)
