"""Samplers: orthonormal columns, unit directions, sums in a fixed order."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.estimators.probe import Term
from edgezo_runtime.methods.samplers import SAMPLERS
from edgezo_runtime.methods.samplers.curvature import Curvature
from edgezo_runtime.methods.samplers.dense import Dense
from edgezo_runtime.methods.samplers.flipout import Flipout
from edgezo_runtime.methods.samplers.frame import Frame, Sampler, Stateless
from edgezo_runtime.methods.samplers.low_rank import LowRank
from edgezo_runtime.methods.samplers.matrix_view import matrix_shape, orthonormal
from edgezo_runtime.methods.samplers.refreshed import Refreshed
from edgezo_runtime.methods.samplers.sparse import Sparse
from edgezo_runtime.methods.samplers.subspace import Subspace, product
from edgezo_runtime.noise import noise

Float64 = npt.NDArray[np.float64]
SHAPES = ((4, 3), (6, 5), (12,), (5,), (2, 3, 2))


def theta_of(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def directions(
    sampler: Sampler, shape: tuple[int, ...], kind: str, count: int, step: int = 0
) -> Float64:
    """(count, size): z of runs with other seeds, so of other subspaces too."""
    theta = theta_of(shape)
    slot = sampler.init(theta)
    found = [
        sampler.frame("w", theta, slot, step, seed).rows(seed, "w", [seed % 3], kind)  # type: ignore[arg-type]
        for seed in range(count)
    ]
    return np.array(found, np.float64).reshape(count, -1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "rademacher"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sampler", [Subspace(2, 5), LowRank(2, 5), Flipout()])
def test_directions_are_uncorrelated_and_of_variance_one(
    sampler: Sampler, shape: tuple[int, ...], kind: str
) -> None:
    """E z z' = I, every entry within 5 standard errors of its own."""
    z = directions(sampler, shape, kind, 1500)
    products = z[:, :, None] * z[:, None, :]
    error = products.std(axis=0) / np.sqrt(len(z))
    assert (np.abs(products.mean(axis=0) - np.eye(z.shape[1])) <= 5 * error + 1e-6).all()
    assert error.max() < 0.2
    assert (np.abs(z.mean(axis=0)) <= 5 * z.std(axis=0) / np.sqrt(len(z))).all()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_gradient_is_the_sum_of_the_directions(name: str, shape: tuple[int, ...]) -> None:
    theta, sampler = theta_of(shape), SAMPLERS[name]()
    frame = sampler.frame("w", theta, sampler.init(theta), 3, 9)
    terms = [Term(5, (0.5, -2.0, 3.0), private=True), Term(6, (1.5,))]
    z, other = frame.rows(5, "w", [0, 1, 2], "gaussian"), frame.rows(6, "w", [0], "gaussian")
    assert z.shape == (3, *shape)
    assert z.dtype == other.dtype == np.float32
    expected = np.tensordot([0.5, -2.0, 3.0], z.astype(np.float64), 1) + 1.5 * other[0]
    found = frame.gradient(terms, "w", "gaussian")
    assert found.shape == shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)
    # a row is the same alone
    np.testing.assert_array_equal(frame.rows(5, "w", [2], "gaussian")[0], z[2])


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_frame_lasts_until_the_refresh_and_reads_theta_only_at_once(name: str) -> None:
    theta, options = theta_of((6, 5)), {"refresh": 4, "subspace_rank": 2}
    if name not in ("subspace", "low_rank"):
        options = {}
    sampler, later = SAMPLERS[name](**options), SAMPLERS[name](**options)
    before = theta.copy()

    def at(used: Sampler, step: int) -> bytes:
        own = used.frame("w", theta, used.init(theta), step, 1)
        return own.rows(7, "w", [0, 1], "gaussian").tobytes()

    found = [at(sampler, step) for step in range(9)]
    assert [at(later, step) for step in (8, 3, 4, 0)] == [found[step] for step in (8, 3, 4, 0)]
    if options:
        assert len(set(found)) == 3
        assert found[:4] == [found[0]] * 4
    np.testing.assert_array_equal(theta, before)


# --- orthonormal columns ---


@pytest.mark.parametrize(("rows", "rank"), [(8, 8), (300, 8), (2, 1), (40, 16)])
def test_columns_are_orthonormal(rows: int, rank: int) -> None:
    q = orthonormal(3, "w", rows, rank).astype(np.float64)
    assert q.shape == (rows, rank)
    np.testing.assert_allclose(q.T @ q, np.eye(rank), atol=1e-6)


def test_columns_are_those_of_qr_with_a_positive_diagonal() -> None:
    """The factor of Gaussian columns that is unique, and Haar."""
    drawn = noise(3, "w", (8, 50), kind="gaussian").astype(np.float64).T
    q, r = np.linalg.qr(drawn)
    np.testing.assert_allclose(orthonormal(3, "w", 50, 8), q * np.sign(np.diag(r)), atol=1e-6)


def test_columns_point_anywhere() -> None:
    """Haar: the mean is zero and no direction is preferred; a fixed sign would show."""
    q = np.array([orthonormal(seed, "w", 3, 2) for seed in range(1500)], np.float64)
    error = 1 / np.sqrt(3 * len(q))
    assert (np.abs(q.mean(axis=0)) < 5 * error).all()
    second = np.einsum("sik,sjk->kij", q, q) / len(q)
    np.testing.assert_allclose(second, np.broadcast_to(np.eye(3) / 3, (2, 3, 3)), atol=0.05)


# --- sums ---


def test_product_is_the_matrix_product() -> None:
    random = np.random.default_rng(0)
    left, middle, right = (
        random.normal(size=shape).astype(np.float32) for shape in ((7, 4), (3, 4, 2), (5, 2))
    )
    found = product(left, middle, right)
    expected = left.astype(np.float64) @ middle.astype(np.float64) @ right.T.astype(np.float64)
    assert found.dtype == np.float32
    # 4 and 2 products of magnitude 10 at most, each rounded to float32
    np.testing.assert_allclose(found, expected, atol=5e-6)


_PRINT = """
import hashlib
import numpy as np
from edgezo_runtime.methods.samplers import SAMPLERS
theta = np.linspace(-1, 1, 35, dtype=np.float32).reshape(7, 5)
for name, make in SAMPLERS.items():
    sampler = make()
    frame = sampler.frame("w", theta, sampler.init(theta), 3, 9)
    z = frame.rows(1, "w", [0, 1], "gaussian")
    print(name, hashlib.sha256(z.tobytes()).hexdigest()[:12])
"""


def test_bits_are_the_same_in_another_process() -> None:
    """With other threads for BLAS, which takes no part."""

    found = [
        subprocess.run(
            [sys.executable, "-c", _PRINT],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "OPENBLAS_NUM_THREADS": threads,
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    ]
    assert found[0] == found[1]
    assert len(found[0].split()) == 2 * len(SAMPLERS)


# --- parts ---


@pytest.mark.parametrize(
    ("shape", "rank", "expected"),
    [
        ((4, 3), 2, (4, 3)),
        ((4, 3), 3, None),  # 4 by 3 is the most square there is
        ((2, 30), 2, (10, 6)),
        ((12,), 2, (4, 3)),
        ((64,), 7, (8, 8)),
        ((5,), 2, None),
        ((2, 3, 2), 2, (4, 3)),
        ((7,), 1, None),
        ((), 1, None),
    ],
)
def test_tensors_as_matrices(
    shape: tuple[int, ...], rank: int, expected: tuple[int, int] | None
) -> None:
    assert matrix_shape(shape, rank) == expected


@pytest.mark.parametrize("mask", ["small", "large", "random"])
def test_as_many_coordinates_move_as_said(mask: str) -> None:
    theta = theta_of((6, 5))
    moving = []
    for step in range(2):
        frame = Sparse(0.75, mask).frame("w", theta, None, step, 0)  # type: ignore[arg-type]
        moving.append(frame.lift(np.ones((1, 6, 5), np.float32))[0] == 1)
    assert [int(own.sum()) for own in moving] == [8, 8]  # a quarter of 30, rounded up
    size = np.abs(theta)
    if mask == "small":
        assert size[moving[0]].max() <= size[~moving[0]].min()
    elif mask == "large":
        assert size[moving[0]].min() >= size[~moving[0]].max()
    assert (moving[0] != moving[1]).any() == (mask == "random")


def test_ties_are_broken_at_random_and_anew() -> None:
    """A tensor that starts at zero has nothing but ties."""
    theta = np.zeros((6, 5), np.float32)
    found = {
        Sparse(0.5).frame("w", theta, None, step, 0).lift(np.ones((1, 6, 5), np.float32)).tobytes()
        for step in range(5)
    }
    assert len(found) == 5


def test_curvature_stays_within_its_range() -> None:
    theta, sampler = theta_of((4, 3)), Curvature(0.9)
    slot = sampler.init(theta)
    for step, curvature in enumerate((1e30, 1e30, 1e30, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)):
        frame = sampler.frame("w", theta, slot, step, 0)
        term = Term(step, (1.0,), curvature=curvature)
        slot = sampler.advance(slot, frame, "w", [term], "gaussian")
        assert slot is not None
        assert (slot["curvature"] >= np.float32(1e-4)).all()
        assert (slot["curvature"] <= 1e4).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Subspace(0), "`subspace_rank` 0: must be 1 or more"),
        (lambda: LowRank(2, 0), "`refresh` 0: must be 1 or more"),
        (lambda: Sparse(1.0), r"`sparsity` 1.0: must be at least 0 and below 1"),
        (lambda: Sparse(0.5, "some"), "`mask` some: expected small, large or random"),  # type: ignore[arg-type]
        (lambda: Curvature(1.0), "`smoothing` 1.0: must be at least 0 and below 1"),
    ],
)
def test_settings_out_of_range_are_refused(make: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()  # type: ignore[operator]


# --- bases ---


@pytest.mark.parametrize("shape", SHAPES)
def test_dense_directions_are_the_noise_itself(shape: tuple[int, ...]) -> None:
    frame = Dense().frame("w", theta_of(shape), None, 3, 9)
    assert (type(frame), frame.shape, frame.coords) == (Frame, shape, shape)
    own = noise(7, "w", shape, kind="gaussian", row=2)
    np.testing.assert_array_equal(frame.rows(7, "w", [2], "gaussian")[0], own)
    terms = [Term(7, (0.0, 0.0, 2.0), private=True)]
    np.testing.assert_array_equal(frame.gradient(terms, "w", "gaussian"), 2 * own)


def test_samplers_without_state_keep_nothing() -> None:
    sampler = Stateless()
    assert sampler.init(theta_of((4, 3))) is None
    assert sampler.advance(None, Frame((4, 3)), "w", [Term(0, (1.0,))], "gaussian") is None


class Counted(Refreshed):
    """Counts the frames it makes."""

    def __init__(self, refresh: int) -> None:
        super().__init__(2, refresh)
        self.seeds: list[tuple[str, int]] = []

    def _make(self, name: str, theta: npt.NDArray[np.float32], seed: int) -> Frame:
        self.seeds.append((name, seed))
        return Frame(theta.shape)


def test_a_frame_is_made_once_for_each_refresh_tensor_and_run() -> None:
    sampler, theta = Counted(3), theta_of((4, 3))
    frames = [sampler.frame("w", theta, None, step, 5) for step in range(6)]
    assert frames[0] is frames[1] is frames[2]
    assert frames[3] is frames[4] is frames[5] is not frames[0]
    sampler.frame("v", theta, None, 5, 5)
    sampler.frame("w", theta, None, 5, 6)
    assert [name for name, _ in sampler.seeds] == ["w", "w", "v", "w"]
    first, second, other, run = (seed for _, seed in sampler.seeds)
    assert second == other  # the tensor's name tells its noise apart
    assert len({first, second, run}) == 3
