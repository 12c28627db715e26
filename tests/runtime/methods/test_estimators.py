"""Estimators: their formulas, and what they exchange with the loop.

`test_estimators_by_formula.py` has the formulas of most, `tests/contract/test_unbiased.py` what the
estimates are in mean.
"""

import numpy as np
import numpy.typing as npt
import pytest

from edgezo_runtime.errors import DivergedError, RunFileError, UsageError
from edgezo_runtime.methods.estimators import ESTIMATORS
from edgezo_runtime.methods.estimators.n_spsa import n_spsa
from edgezo_runtime.methods.estimators.per_example import per_example
from edgezo_runtime.methods.estimators.probe import (
    Probe,
    StepInfo,
    Term,
    record_losses,
    replay_estimator,
)
from edgezo_runtime.methods.estimators.two_point import two_point
from edgezo_runtime.methods.samplers import Frame
from edgezo_runtime.noise import NoiseKind, noise
from tests.estimator_runs import run_estimator

DIMS, BATCH = 6, 4
Float64Array = npt.NDArray[np.float64]


def quadratic() -> tuple[Float64Array, Float64Array]:
    """Curvature (D, D) and centres (B, D) of l_b(x) = (x - c_b)' H (x - c_b) / 2."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(DIMS, DIMS))
    return root @ root.T / DIMS, rng.normal(size=(BATCH, DIMS))


def exact_losses(
    theta: npt.NDArray[np.float32], probes: list[Probe], kind: NoiseKind
) -> Float64Array:
    curvature, centres = quadratic()
    losses = np.empty((len(probes), BATCH))
    for p, probe in enumerate(probes):
        for b in range(BATCH):
            z = noise(probe.seed, "theta", (DIMS,), kind=kind, row=b if probe.private else 0)
            x = theta + probe.scale * z.astype(np.float64) - centres[b]
            losses[p, b] = x @ curvature @ x / 2
    return losses


def estimate(
    name: str, theta: npt.NDArray[np.float32], seed: int, kind: NoiseKind
) -> npt.NDArray[np.float32]:
    terms = run_estimator(
        ESTIMATORS[name](1e-2),
        StepInfo(seed, BATCH, lr=0.01),
        lambda probes: record_losses(exact_losses(theta, probes, kind), probes),
    )
    return Frame((DIMS,)).gradient(terms, "theta", kind)


def test_private_directions_have_less_variance_than_a_shared_one() -> None:
    theta = np.full(DIMS, 5, np.float32)  # far from every centre: the examples agree
    spread = {
        name: np.stack([estimate(name, theta, seed, "rademacher") for seed in range(300)]).var()
        for name in ("two_point", "per_example")
    }
    assert spread["per_example"] < spread["two_point"] / 2


@pytest.mark.parametrize("name", ESTIMATORS)
def test_probes_leave_theta_and_repeat_exactly(name: str) -> None:
    theta = np.linspace(-1, 1, DIMS).astype(np.float32)
    before = theta.tobytes()
    first = estimate(name, theta, 0, "gaussian")
    assert theta.tobytes() == before
    np.testing.assert_array_equal(first, estimate(name, theta, 0, "gaussian"))
    assert (first != estimate(name, theta, 1, "gaussian")).any()
    assert first.dtype == np.float32


def test_two_point_is_the_documented_formula() -> None:
    steps = two_point(0.5)(StepInfo(0, BATCH))
    assert next(steps) == [Probe(0, 0.5), Probe(0, -0.5)]
    with pytest.raises(StopIteration) as done:
        steps.send(np.array([[3.0], [1.0]]))
    assert done.value.value == [Term(0, (2.0,))]


def test_per_example_is_the_documented_formula() -> None:
    steps = per_example(0.5)(StepInfo(0, 2))
    assert next(steps) == [Probe(0, 0.5, private=True), Probe(0, -0.5, private=True)]
    with pytest.raises(StopIteration) as done:
        steps.send(np.array([[3.0, 1.0], [1.0, 5.0]]))
    assert done.value.value == [Term(0, (1.0, -2.0), private=True)]


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("eps", [0.0, -1e-3, float("nan"), float("inf")])
def test_an_unfit_eps_is_refused_before_the_first_step(name: str, eps: float) -> None:
    with pytest.raises(UsageError, match="eps must be a finite number above zero"):
        ESTIMATORS[name](eps)


def test_recorded_losses_are_exact_in_float32() -> None:
    losses = np.random.default_rng(0).normal(size=(2, BATCH))
    shared = record_losses(losses, [Probe(0, 1), Probe(0, -1)])
    private = record_losses(losses, [Probe(0, 1, True), Probe(0, -1, True)])
    assert shared.shape == (2, 1)
    assert private.shape == (2, BATCH)
    for kept in (shared, private):
        np.testing.assert_array_equal(kept, kept.astype(np.float32))
    np.testing.assert_allclose(shared[:, 0], losses.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(private, losses, rtol=1e-6)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), r"loss nan is not finite at probe 1 of 2, seed 7, scale -0.5"),
        (float("-inf"), r"loss -inf .* \(example 2 of the batch, 1 in all\)"),
        (1e300, r"loss 1e\+300 is not finite"),
    ],
)
def test_a_loss_that_is_not_finite_names_its_probe(
    value: float, message: str, private: bool
) -> None:
    losses = np.ones((2, BATCH))
    losses[1, 2] = value
    with pytest.raises(DivergedError, match=message):
        record_losses(losses, [Probe(7, 0.5, private), Probe(7, -0.5, private)])


def test_unfit_losses_and_terms_are_refused() -> None:
    with pytest.raises(UsageError, match=r"must be \(2, B\)"):
        record_losses(np.ones((3, BATCH)), [Probe(0, 1), Probe(0, -1)])
    with pytest.raises(UsageError, match="cannot be evaluated in one pass"):
        record_losses(np.ones((2, BATCH)), [Probe(0, 1), Probe(0, -1, private=True)])
    with pytest.raises(UsageError, match="a shared term has one coefficient, not 2"):
        Term(0, (1.0, 2.0))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_recorded_losses_give_the_same_terms_again(name: str) -> None:
    theta, info = np.full(DIMS, 0.5, np.float32), StepInfo(3, BATCH, step=1, lr=0.01)
    passes: list[Float64Array] = []

    def evaluate(probes: list[Probe]) -> Float64Array:
        passes.append(record_losses(exact_losses(theta, probes, "gaussian"), probes))
        return passes[-1]

    terms = run_estimator(ESTIMATORS[name](1e-2), info, evaluate)
    assert terms
    losses = np.concatenate(passes)
    assert replay_estimator(ESTIMATORS[name](1e-2), info, losses) == terms
    for other in (losses[:-1], np.concatenate([losses, losses[:1]])):
        with pytest.raises(RunFileError, match="step 1 has losses of"):
            replay_estimator(ESTIMATORS[name](1e-2), info, other)


def test_recorded_losses_of_another_batch_are_refused() -> None:
    info, losses = StepInfo(0, BATCH), np.ones((2, BATCH))
    with pytest.raises(RunFileError, match="4 rows, its estimator asks for 2 or more and 1"):
        replay_estimator(two_point(0.5), info, losses)
    with pytest.raises(RunFileError, match="3 rows, its estimator asks for 2 or more and 4"):
        replay_estimator(per_example(0.5), info, losses[:, :3])


def test_an_estimator_is_run_pass_by_pass() -> None:
    """Each pass is evaluated once the estimator has seen the one before."""
    seen: list[list[Probe]] = []

    def evaluate(probes: list[Probe]) -> Float64Array:
        seen.append(probes)
        return np.full((len(probes), 1), float(len(seen)))

    terms = run_estimator(n_spsa(0.5, 3), StepInfo(0, BATCH), evaluate)
    assert [len(probes) for probes in seen] == [2, 2, 2]
    assert [term.seed for term in terms] == [probes[0].seed for probes in seen]
    assert all(term.coeff == (0.0,) for term in terms)


def test_a_term_concerns_the_blocks_it_names() -> None:
    assert Term(0, (1.0,)).concerns(5)
    own = Term(0, (1.0,), blocks=(2, 3))
    assert [block for block in range(5) if own.concerns(block)] == [2, 3]
