"""Formulas of the estimators on made-up losses."""

import math

import numpy as np
import pytest

from edgezo_runtime.methods.estimators.block_wise import block_wise
from edgezo_runtime.methods.estimators.conservative import conservative
from edgezo_runtime.methods.estimators.curved_pair import curved_pair
from edgezo_runtime.methods.estimators.forward_grad import forward_grad
from edgezo_runtime.methods.estimators.growing_pairs import growing_pairs
from edgezo_runtime.methods.estimators.n_spsa import n_spsa
from edgezo_runtime.methods.estimators.one_sided import one_sided
from edgezo_runtime.methods.estimators.probe import Estimator, Probe, StepInfo, Term
from edgezo_runtime.methods.estimators.scalar_sign import scalar_sign
from edgezo_runtime.methods.estimators.scaled_one_sided import scaled_one_sided
from edgezo_runtime.methods.estimators.scaled_per_example import scaled_per_example
from edgezo_runtime.methods.estimators.variance_reduced import variance_reduced

EPS = 0.25


def answered(
    estimator: Estimator, info: StepInfo, *answers: list[float] | list[list[float]]
) -> tuple[list[list[Probe]], list[Term]]:
    """What an estimator asks, pass after pass, and what it makes of these losses."""
    steps = estimator(info)
    asked = [next(steps)]
    for answer in answers[:-1]:
        asked.append(steps.send(np.reshape(answer, (len(asked[-1]), -1))))
    with pytest.raises(StopIteration) as done:
        steps.send(np.reshape(answers[-1], (len(asked[-1]), -1)))
    return asked, done.value.value


def test_one_sided() -> None:
    asked, terms = answered(one_sided(EPS), StepInfo(7, 4), [3.0, 5.0])
    assert asked == [[Probe(7, 0.0), Probe(7, EPS)]]
    assert terms == [Term(7, (8.0,))]


def test_curved_pair_tells_slope_and_curvature() -> None:
    _, (term,) = answered(curved_pair(EPS), StepInfo(7, 4), [1.0, 4.0, 2.0])
    assert term.coeff == (4.0,)  # (4 - 2) / (2 eps)
    assert term.curvature == 64.0  # (4 + 2 - 2) / eps^2


@pytest.mark.parametrize(("pair", "sign"), [((3.0, 1.0), 1.0), ((1.0, 3.0), -1.0), ((2, 2), 0.0)])
def test_scalar_sign(pair: tuple[float, float], sign: float) -> None:
    _, (term,) = answered(scalar_sign(EPS), StepInfo(7, 4), list(pair))
    assert term.coeff == (sign,)
    assert term.coeff[0] / term.gain == pytest.approx((pair[0] - pair[1]) / (2 * EPS))


def test_n_spsa_takes_directions_of_its_own_and_the_mean() -> None:
    asked, terms = answered(n_spsa(EPS, 2), StepInfo(7, 4), [3.0, 1.0], [0.0, 1.0])
    assert [[probe.scale for probe in probes] for probes in asked] == [[EPS, -EPS]] * 2
    seeds = [probes[0].seed for probes in asked]
    assert len({7, *seeds}) == 3
    assert terms == [Term(seeds[0], (2.0,)), Term(seeds[1], (-1.0,))]


@pytest.mark.parametrize("epoch", [0, 1, 5, 40, 10**6])
def test_growing_pairs_follow_the_schedule(epoch: int) -> None:
    expected = min(max(math.floor(0.85 * (epoch + 1) ** 0.45), 1), 20)
    info = StepInfo(7, 4, epoch=epoch)
    asked, terms = answered(growing_pairs(EPS), info, *([[1.0, 0.0]] * expected))
    assert len(asked) == len(terms) == expected
    assert sum(term.coeff[0] for term in terms) == pytest.approx(2.0)


def test_block_wise_has_a_pair_for_every_block() -> None:
    info = StepInfo(7, 4, blocks=(2, 5))
    (probes,), terms = answered(block_wise(EPS), info, [9.0, 3.0, 1.0, 5.0, 8.0])
    assert [probe.blocks for probe in probes] == [(), (2,), (2,), (5,), (5,)]
    assert [probe.scale for probe in probes] == [0.0, EPS, -EPS, EPS, -EPS]
    assert probes[1].seed == probes[2].seed != probes[3].seed == probes[4].seed
    assert terms == [
        Term(probes[1].seed, (4.0,), blocks=(2,)),
        Term(probes[3].seed, (-6.0,), blocks=(5,)),
    ]


def slope_along(loss: np.polynomial.Polynomial, eps: float) -> float:
    """What `forward_grad` makes of a loss that depends on the way along z."""
    scales = [eps, -eps, 2 * eps, -2 * eps]
    asked, (term,) = answered(forward_grad(eps), StepInfo(7, 4), [loss(s) for s in scales])
    assert [probe.scale for probe in asked[0]] == scales
    return term.coeff[0]


def test_forward_grad_is_exact_on_polynomials_of_degree_four() -> None:
    loss = np.polynomial.Polynomial([0.3, -1.7, 2.5, 4.0, -3.0])
    assert slope_along(loss, 0.5) == pytest.approx(-1.7, rel=1e-12)


def test_the_error_of_forward_grad_is_the_one_stated() -> None:
    """D - L'(0) = -eps^4 / 30 L^(5), which is 120 a_5 everywhere for degree 5."""
    loss = np.polynomial.Polynomial([0.0, 1.0, 0.0, 0.0, 0.0, 0.25])
    for eps in (0.5, 0.25):
        assert slope_along(loss, eps) - 1.0 == pytest.approx(-(eps**4) / 30 * 120 * 0.25)


def test_scaled_one_sided_divides_by_the_spread() -> None:
    losses = [1.0, 2.0, 5.0, 3.0]
    asked, terms = answered(scaled_one_sided(EPS, 3), StepInfo(7, 4), losses)
    assert [probe.scale for probe in asked[0]] == [0.0, EPS, EPS, EPS]
    spread = np.std(losses[1:], ddof=1)
    found = [term.coeff[0] for term in terms]
    assert found == pytest.approx(np.subtract(losses[1:], 1.0) / (3 * spread))
    assert [term.gain for term in terms] == pytest.approx([EPS / spread] * 3)


def test_scaled_per_example_divides_by_the_spread() -> None:
    plus, minus = [1.0, 2.0, 7.0], [0.5, 3.0, 3.0]
    _, (term,) = answered(scaled_per_example(EPS), StepInfo(7, 3), [plus, minus])
    differences = np.subtract(plus, minus)
    expected = differences / (differences.std() + 1e-8) / (2 * EPS * 3)
    assert term.private
    assert term.coeff == pytest.approx(tuple(expected))
    assert np.divide(term.coeff, term.gain) == pytest.approx(differences / (2 * EPS * 3))


def test_equal_losses_give_no_step_and_no_division_by_zero() -> None:
    _, terms = answered(scaled_one_sided(EPS, 3), StepInfo(7, 4), [2.0] * 4)
    assert all(term.coeff == (0.0,) and math.isfinite(term.gain) for term in terms)
    _, (term,) = answered(scaled_per_example(EPS), StepInfo(7, 3), [[2.0] * 3] * 2)
    assert term.coeff == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("tried", "share"),
    [((0.5, 2.0), 1.0), ((2.0, 0.5), -1.0), ((2.0, 2.0), 0.0), ((1.0, 1.0), 0.0)],
)
def test_conservative_takes_the_least_of_three(tried: tuple[float, float], share: float) -> None:
    info = StepInfo(7, 4, lr=0.1)
    asked, terms = answered(conservative(EPS), info, [1.0, 3.0, 1.0], list(tried))
    assert [probe.scale for probe in asked[0]] == [0.0, EPS, -EPS]
    # theta - lr c z first, with c = 4
    assert [probe.scale for probe in asked[1]] == pytest.approx([-0.4, 0.4])
    assert terms == [Term(7, (4.0 * share,))]


def test_variance_reduced_asks_for_further_batches_at_an_anchor() -> None:
    estimator = variance_reduced(EPS, anchor_every=2, anchor_batches=2)
    asked, (term,) = answered(estimator, StepInfo(7, 4, step=4), [3.0, 1.0], [2.0, 1.0])
    assert [[probe.batch for probe in probes] for probes in asked] == [[1, 1], [2, 2]]
    assert len({probe.seed for probes in asked for probe in probes}) == 1
    assert term.coeff == (3.0,)  # mean of 2 and 1, over 2 eps
    asked, (term,) = answered(estimator, StepInfo(7, 4, step=5), [3.0, 1.0], [2.0, 1.5])
    assert [[probe.anchored for probe in probes] for probes in asked] == [[False] * 2, [True] * 2]
    assert len({probe.seed for probes in asked for probe in probes}) == 1
    assert term.coeff == (3.0,)  # 2 less 0.5, over 2 eps
