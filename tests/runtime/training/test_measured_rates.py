"""Rates that are measured before the first step."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import DivergedError, UsageError
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.training.calibrate import FACTOR, LARGEST, SMALLEST
from edgezo_runtime.training.measured_rates import measure_rates
from edgezo_runtime.training.step_evaluator import StepEvaluator
from edgezo_runtime.training.trajectory import Trajectory
from tests.runtime.tuner_runs import BASE, state_bits

pytestmark = pytest.mark.usefixtures("unsynced")

MEASURED: dict[str, Any] = {"method": "zo-sgd", "lr": "auto", "eps": "auto", "scope": "all"}


def made(bundle: Bundle, examples: ExampleSet, **given: Any) -> tuple[StepEvaluator, Trajectory]:
    config = dataclasses.replace(BASE, **{**MEASURED, **given})
    trajectory = Trajectory(bundle, config, len(examples))
    return StepEvaluator(Engine(bundle), examples, trajectory), trajectory


def measured(evaluator: StepEvaluator, trajectory: Trajectory) -> Rates:
    return measure_rates(
        evaluator.probes,
        trajectory.state,
        trajectory.settled,
        trajectory.rates,
        evaluator.first_order,
    )


def test_given_rates_are_not_measured(bundle: Bundle, examples: ExampleSet) -> None:
    evaluator, trajectory = made(bundle, examples, lr=0.03, eps=0.01)
    assert measured(evaluator, trajectory) == trajectory.rates == Rates(0.03, 0.01)


def test_measuring_gives_numbers_and_their_origin_and_changes_nothing(
    bundle: Bundle, examples: ExampleSet
) -> None:
    evaluator, trajectory = made(bundle, examples)
    before = state_bits(trajectory.state)
    found = measured(evaluator, trajectory)
    found.check()
    assert state_bits(trajectory.state) == before
    rung = math.log(found.eps / SMALLEST, FACTOR)
    assert rung == pytest.approx(round(rung))
    assert SMALLEST <= found.eps <= LARGEST
    assert found.lr == float(np.float32(found.lr))
    scale, rate = found.words.split("; ")
    assert scale.startswith(f"eps {found.eps:g} (a perturbation changes the loss of a row by ")
    assert rate.startswith(f"lr {found.lr:.3g} (")
    assert measured(evaluator, trajectory) == found


def test_one_rate_is_measured_at_the_other(bundle: Bundle, examples: ExampleSet) -> None:
    evaluator, trajectory = made(bundle, examples)
    both = measured(evaluator, trajectory)
    evaluator, trajectory = made(bundle, examples, eps=both.eps)
    found = measured(evaluator, trajectory)
    assert (found.lr, found.eps) == (both.lr, both.eps)
    assert "eps" not in found.words
    evaluator, trajectory = made(bundle, examples, lr=0.03)
    found = measured(evaluator, trajectory)
    assert (found.lr, found.eps) == (0.03, both.eps)


def test_first_order_steps_have_a_rate_of_their_own(bundle: Bundle, examples: ExampleSet) -> None:
    first_order: dict[str, Any] = {
        "method": "auto", "lr": 0.03, "eps": 0.01, "first_order": 2, "first_order_lr": "auto",
    }  # fmt: skip
    evaluator, trajectory = made(bundle, examples, **first_order)
    found = measured(evaluator, trajectory)
    assert found.first_order_lr > 0
    assert found.words.startswith(f"first-order lr {found.first_order_lr:.3g} (")
    assert dataclasses.replace(found, first_order_lr=1.0, words="") == trajectory.rates


def test_a_model_whose_losses_are_not_finite_is_refused(
    bundle: Bundle, examples: ExampleSet
) -> None:
    evaluator, trajectory = made(bundle, examples)
    trajectory.state.theta[next(iter(trajectory.state.slots))][:] = np.nan
    with pytest.raises(DivergedError, match="losses before the first step are not finite"):
        measured(evaluator, trajectory)


def test_losses_that_do_not_answer_have_no_rate(
    bundle: Bundle, examples: ExampleSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator, trajectory = made(bundle, examples, eps=0.01)
    score = evaluator._engine.score

    def constant(*args: Any, **options: Any) -> Any:
        scores = score(*args, **options)
        scores[:] = 0
        return scores

    monkeypatch.setattr(evaluator._engine, "score", constant)
    with pytest.raises(UsageError, match="gradient estimates of the first steps are zero"):
        measured(evaluator, trajectory)


def test_a_measured_rate_that_stays_is_a_third_of_one_that_falls(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    found = {}
    for name in ("constant", "linear"):
        config = dataclasses.replace(BASE, lr="auto", lr_schedule=name)
        with Tuner.open(bundle, examples, config, tmp_path / name) as tuner:
            found[name] = tuner.run.rates.lr
    assert found["constant"] == pytest.approx(found["linear"] / 3, rel=1e-6)
