"""Calibration against losses whose slopes, noise and curvature are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.rules import RULES, Adam, FactorMomentum, Momentum, Rule, Sgd, Sign
from edgezo_runtime.training.calibrate import (
    FACTOR,
    FIRST_ORDER_NATS,
    LARGEST,
    SIGNAL_TO_NOISE,
    SMALLEST,
    STEADY_NATS,
    STEP_NATS,
    Evaluate,
    Losses,
    Scale,
    find_first_order_rate,
    find_rate,
    find_scale,
)

SLOPES = np.random.default_rng(0).normal(size=400)


def losses(slope: float, noise: float = 0.0, curvature: float = 0.0) -> Evaluate:
    """l_b(s) = 1 + slope_b s + curvature s^2 / 2, each evaluation with noise of its own."""
    random = np.random.default_rng(1)

    def evaluate(scales: Sequence[float]) -> Losses:
        s = np.array(scales)[:, None]
        exact = 1 + slope * SLOPES * s + curvature * s**2 / 2
        return np.asarray(exact + noise * random.normal(size=exact.shape))

    return evaluate


@pytest.mark.parametrize("slope", [1e-2, 1.0, 30.0])
def test_the_smallest_scale_that_stands_out(slope: float) -> None:
    noise = 1e-6  # of a difference over two: 1e-6 / sqrt(2)
    found = find_scale(losses(slope, noise))
    needed = SIGNAL_TO_NOISE * noise / math.sqrt(2) / (slope * math.sqrt(np.mean(SLOPES**2)))
    exponent = math.ceil(math.log(needed / SMALLEST, FACTOR) - 0.05)
    assert found.eps == pytest.approx(SMALLEST * FACTOR ** max(0, exponent))
    assert found.floor == pytest.approx(noise / math.sqrt(2), rel=0.1)
    assert found.ratio >= SIGNAL_TO_NOISE


def test_losses_that_repeat_exactly_still_round() -> None:
    """float32 losses of about 1 are known to 6e-8 at best."""
    found = find_scale(losses(1.0))
    assert found.floor == pytest.approx(2**-24, rel=0.01)


def test_the_scale_stays_where_losses_are_nearly_linear() -> None:
    """The floor asks for eps 0.7; from 0.1 on the curvature bends the losses."""
    found = find_scale(losses(0.01, 1e-6, curvature=0.1))
    assert 0.01 * found.eps > 0.1 * found.eps**2 / 4
    assert found.ratio < SIGNAL_TO_NOISE
    assert find_scale(losses(0.01, 1e-6)).eps > found.eps


def test_trainables_that_do_nothing_are_told() -> None:
    with pytest.raises(
        UsageError, match=r"eps`? auto: no perturbation up to 128 changes the losses"
    ):
        find_scale(losses(0.0, 1e-6))
    assert LARGEST == 128


@pytest.mark.parametrize("rms", [1e-3, 0.3, 20.0])
def test_the_rate_of_sgd_is_that_of_the_formula(rms: float) -> None:
    """lr mean(g^2) = STEP_NATS: the best rate is one over the noise of the estimate."""
    lr = find_rate(rms, rms, Sgd())
    assert lr * rms**2 == pytest.approx(STEP_NATS, rel=0.05)


def test_a_rate_that_stays_is_a_third() -> None:
    assert find_rate(0.3, 0.3, Sgd(), STEADY_NATS) == pytest.approx(find_rate(0.3, 0.3, Sgd()) / 3)


def test_a_normalized_estimate_moves_as_far() -> None:
    assert find_rate(0.01, 1.0, Sgd()) * 1.0 == pytest.approx(
        find_rate(0.01, 0.01, Sgd()) * 0.01, rel=1e-3
    )


@pytest.mark.parametrize(
    ("rule", "gain"),
    [(Momentum(), 10.0), (Sign(), 1 / 0.02), (FactorMomentum(), 1.0), (Adam(), 1 / 0.02)],
    ids=lambda value: type(value).__name__ if not isinstance(value, float) else None,
)
def test_other_rules_go_as_far_as_sgd(rule: Rule, gain: float) -> None:
    """In the long run a gradient moves theta by 1 / (1 - momentum) of itself under momentum, by
    itself under a damped one, by one over its size under Sign and Adam."""
    lr = find_rate(0.02, 0.02, rule)
    assert lr * gain == pytest.approx(find_rate(0.02, 0.02, Sgd()), rel=0.25)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_a_rate(name: str) -> None:
    assert 0 < find_rate(0.05, 0.05, RULES[name]()) < math.inf


def test_no_signal_has_no_rate() -> None:
    assert find_rate(0.0, 0.0, Sgd()) == math.inf


def test_a_first_order_step_moves_losses_by_so_much() -> None:
    scale = Scale(eps=0.5, signal=0.25, floor=1e-9)  # half a nat a unit
    assert find_first_order_rate(scale) == pytest.approx(2 * FIRST_ORDER_NATS, rel=1e-6)
