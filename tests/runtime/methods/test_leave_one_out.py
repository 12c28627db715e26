"""What `leave_one_out` promises beyond the tables: formula, bias, variance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.estimators.leave_one_out import leave_one_out
from edgezo_runtime.methods.estimators.per_example import per_example
from edgezo_runtime.methods.estimators.probe import Estimator, Probe, StepInfo, record_losses
from edgezo_runtime.methods.samplers.frame import Frame
from edgezo_runtime.noise import noise

DIMS, BATCH = 8, 4
SLOPE = np.linspace(-1, 1, DIMS)
CURVATURE = np.linspace(0.5, 3, DIMS)


def losses_at(probes: list[Probe], curvature: float) -> npt.NDArray[np.float64]:
    """l(x) = g x + curvature * x' H x / 2 around theta = 0, the same for every example."""
    losses = np.empty((len(probes), BATCH))
    for p, probe in enumerate(probes):
        for b in range(BATCH):
            z = noise(probe.seed, "theta", (DIMS,), kind="gaussian", row=b)
            x = probe.scale * z.astype(np.float64)
            losses[p, b] = SLOPE @ x + curvature * (CURVATURE * x) @ x / 2
    return losses


def estimates(estimator: Estimator, curvature: float, count: int = 250) -> npt.NDArray[np.float64]:
    """(count, DIMS), one estimate a seed."""
    found = []
    for seed in range(count):
        steps = estimator(StepInfo(seed, BATCH))
        probes = next(steps)
        with pytest.raises(StopIteration) as done:
            steps.send(record_losses(losses_at(probes, curvature), probes))
        found.append(Frame((DIMS,)).gradient(done.value.value, "theta", "gaussian"))
    return np.array(found, np.float64)


def variance(estimator: Estimator, curvature: float = 0.0) -> float:
    return float(estimates(estimator, curvature).var(axis=0).sum())


def test_it_is_the_documented_formula() -> None:
    steps = leave_one_out(0.5, 3)(StepInfo(7, 2))
    probes = next(steps)
    assert [probe.scale for probe in probes] == [0.5] * 3
    assert all(probe.private for probe in probes)
    assert len({probe.seed for probe in probes}) == 3
    with pytest.raises(StopIteration) as done:
        steps.send(np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]]))
    terms = done.value.value
    assert [term.seed for term in terms] == [probe.seed for probe in probes]
    # less the mean 3 of the first example, over eps (N - 1) B = 2; the second example says nothing
    assert [term.coeff for term in terms] == [(-1.0, 0.0), (-0.5, 0.0), (1.5, 0.0)]


@pytest.mark.slow
@pytest.mark.parametrize("curvature", [0.0, 1.0])
def test_the_mean_is_the_gradient(curvature: float) -> None:
    """A term of order eps^2 in the loss is even in z: it adds variance, and no bias."""
    found = estimates(leave_one_out(0.3), curvature)
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(found.mean(axis=0) - SLOPE) < 4 * error).all()
    assert np.linalg.norm(error) < 0.2 * np.linalg.norm(SLOPE)


@pytest.mark.slow
def test_curvature_adds_variance_of_order_eps() -> None:
    """Pairs cancel it; so they bear the larger eps."""
    straight, small, large = (
        variance(leave_one_out(eps), curvature)
        for eps, curvature in ((0.01, 0.0), (0.01, 1.0), (1.0, 1.0))
    )
    assert small < 1.1 * straight
    assert large > 2 * straight
    assert variance(per_example(1.0), 1.0) < 1.01 * variance(per_example(0.01), 0.0)


@pytest.mark.slow
def test_n_rows_are_worth_n_less_one_directions() -> None:
    """Eight rows give the variance of seven directions an example; four pairs would give four."""
    ratio = variance(per_example(0.01)) / variance(leave_one_out(0.01, 8))
    assert ratio == pytest.approx(7, rel=0.2)


def test_a_constant_loss_gives_no_step() -> None:
    steps = leave_one_out(0.1, 4)(StepInfo(0, BATCH))
    next(steps)
    with pytest.raises(StopIteration) as done:
        steps.send(np.full((4, BATCH), 3.25))
    assert all(value == 0 for term in done.value.value for value in term.coeff)


@pytest.mark.parametrize("count", [1, 0, -3])
def test_a_baseline_needs_two_directions(count: int) -> None:
    with pytest.raises(UsageError, match="a baseline needs 2 or more"):
        leave_one_out(0.1, count)
