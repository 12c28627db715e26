"""The mean of every method's estimate, against the analytic gradient of a quadratic."""

import numpy as np
import pytest

from edgezo_runtime.methods.catalogue import METHODS
from tests.contract.methods_table import EPS, TABLE, config_of
from tests.contract.quadratic_run import DIMS, Float64, Quadratic, QuadraticRun

TARGET = Quadratic(np.linspace(0.5, 3, DIMS), np.ones(DIMS), 0.3)
SAMPLES = 600


def test_every_method_has_a_row() -> None:
    """But for feedback, whose gradient is no function of losses."""
    assert set(TABLE) == {name for name, made in METHODS.items() if not made.feedback}


def samples(method: str, count: int = SAMPLES, **given: object) -> tuple[Float64, Float64]:
    """(count, DIMS) estimates of runs with other seeds and subspaces, and their expected means.

    Args:
        given: settings in place of the table's.
    """
    row, found, expected = TABLE[method], [], []
    assert row.mean is not None
    for seed in range(count):
        run = QuadraticRun(config_of(method, seed=seed, **given), TARGET)
        row.prepare(run)
        info = run.info()
        losses, terms = run.estimate(info)
        found.append(run.gradient(info, terms) * row.unit(losses, EPS))
        expected.append(row.mean(run, info))
    return np.array(found), np.array(expected)


def check_mean(found: Float64, expected: Float64) -> None:
    """Within 4 standard errors everywhere, and these are small against what is expected."""
    error = found - expected
    standard_error = error.std(axis=0, ddof=1) / np.sqrt(len(error))
    assert (np.abs(error.mean(axis=0)) <= 4 * standard_error).all()
    # one number for all coordinates: by how much the mean is along what is expected
    share = (found * expected).sum(axis=1) / np.square(expected).sum(axis=1)
    share_error = share.std(ddof=1) / np.sqrt(len(share))
    assert abs(share.mean() - 1) <= 4 * share_error
    assert share_error < 0.1  # a scale of 1 / sqrt(2) or a sign would be seen
    assert np.linalg.norm(standard_error) < 0.35 * np.linalg.norm(expected.mean(axis=0))


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name, row in TABLE.items() if row.mean is not None])
def test_the_mean_is_as_stated(method: str) -> None:
    check_mean(*samples(method))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("sparse", {"mask": "large", "sparsity": 0.25}),
        ("sparse", {"mask": "random", "sparsity": 0.5}),
        ("mezo-svrg", {"anchor_every": 1}),
        ("rloo", {"directions": "shared"}),
        ("grzo", {"noise": "rademacher"}),
        ("subzero", {"noise": "rademacher"}),
        ("lezo", {"schedule": "random:2"}),
        ("zo-sgd", {"noise": "rademacher"}),
    ],
)
def test_the_mean_with_other_options(method: str, given: dict[str, object]) -> None:
    check_mean(*samples(method, **given))
