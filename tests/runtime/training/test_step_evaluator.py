"""What a step evaluates, and what it tries again where memory is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import InterruptedRunError, UsageError
from edgezo_runtime.methods.estimators import Term
from edgezo_runtime.training.step_evaluator import StepEvaluator, StepResult
from edgezo_runtime.training.trajectory import Trajectory
from tests.runtime.tuner_runs import BASE, FIRST_ORDER, SIZES


def made(bundle: Bundle, examples: ExampleSet, **given: Any) -> tuple[StepEvaluator, Trajectory]:
    """An evaluator, and the state that it reads."""
    config = dataclasses.replace(BASE, **{"method": "zo-sgd", "scope": "all", **given})
    trajectory = Trajectory(bundle, config, len(examples))
    return StepEvaluator(Engine(bundle), examples, trajectory), trajectory


def nothing() -> None:
    """A check that ends nothing."""


def result(losses: Any, *coeffs: float) -> StepResult:
    batch: Any = None
    return StepResult(batch, np.array(losses), [Term(0, (value,)) for value in coeffs], 0, b"")


def test_numbers_of_a_result() -> None:
    """A term's coefficient is a projected gradient over the number of terms."""
    one = result([[1.0], [2.0]], 0.5)
    assert (one.mean_loss, one.projected_grad) == (1.5, 0.5)
    two = result([[1.0, 2.0]], 3 / 2, -4 / 2)
    assert two.projected_grad == pytest.approx(math.sqrt((3**2 + 4**2) / 2))
    empty = result(np.empty((0, 0)))
    assert math.isnan(empty.mean_loss)
    assert empty.projected_grad == 0


def test_a_step_evaluates_its_probes_on_its_batch(bundle: Bundle, examples: ExampleSet) -> None:
    evaluator, trajectory = made(bundle, examples)
    found = evaluator.evaluate(trajectory.info(0.03), nothing)
    indices = evaluator.probes.batches.indices(0)
    assert found.batch.num_examples == 2
    assert (found.rows, evaluator.groups, found.gradient) == (4, 2, b"")
    assert evaluator.tokens(found) == 2 * sum(SIZES[index] for index in indices)
    assert evaluator.first_order is None
    none = evaluator.without_losses(trajectory.info(0.03))
    assert (none.losses.size, none.terms, none.rows, none.gradient) == (0, [], 0, b"")
    np.testing.assert_array_equal(none.batch.ids, found.batch.ids)


@pytest.mark.parametrize("refusals", [1, 2])
def test_a_refused_step_is_evaluated_again_to_the_same_bits(
    bundle: Bundle, examples: ExampleSet, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    evaluator, trajectory = made(bundle, examples)
    expected = evaluator.evaluate(trajectory.info(0.03), nothing)
    probes, calls = evaluator.probes, 0
    estimate = probes.estimate

    def short(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= refusals:
            raise MemoryError("refused")
        return estimate(*args, **options)

    monkeypatch.setattr(probes, "estimate", short)
    shrunk: list[str] = []
    monkeypatch.setattr(evaluator._engine, "shrink", shrunk.append)
    found = evaluator.evaluate(trajectory.info(0.03), nothing)
    assert (calls, shrunk) == (refusals + 1, ["refused"] * refusals)
    assert found.losses.tobytes() == expected.losses.tobytes()
    assert found.terms == expected.terms


def test_the_check_ends_the_passes(bundle: Bundle, examples: ExampleSet) -> None:
    evaluator, trajectory = made(bundle, examples)

    def stop() -> None:
        raise InterruptedRunError("stop")

    with pytest.raises(InterruptedRunError, match="stop"):
        evaluator.evaluate(trajectory.info(0.03), stop)


def test_first_order_steps_pack_their_gradient(bundle: Bundle, examples: ExampleSet) -> None:
    trajectory = Trajectory(bundle, FIRST_ORDER, len(examples))
    evaluator = StepEvaluator(Engine(bundle), examples, trajectory)
    info = trajectory.info(0.03)
    found = evaluator.evaluate(info, nothing)
    assert evaluator.first_order is not None
    layout = evaluator.first_order.layout
    exact = evaluator.first_order.gradient(
        found.batch, trajectory.state.theta, evaluator.probes.scope, None, 0
    )
    assert found.gradient == layout.codec.pack(exact.gradients)
    assert len(found.gradient) == layout.codec.nbytes
    probes = len(found.losses)
    assert found.rows == (probes + 1) * found.batch.num_rows


def test_where_all_steps_are_first_order_their_losses_are_recorded(
    bundle: Bundle, examples: ExampleSet
) -> None:
    config = dataclasses.replace(FIRST_ORDER, first_order=2)
    trajectory = Trajectory(bundle, config, len(examples))
    evaluator = StepEvaluator(Engine(bundle), examples, trajectory)
    found = evaluator.evaluate(trajectory.info(0.03), nothing)
    assert found.losses.shape == (1, 2)
    assert (found.terms, found.rows, evaluator.groups) == ([], found.batch.num_rows, 1)


def test_another_division_of_the_blocks_is_another_evaluator(
    bundle: Bundle, examples: ExampleSet
) -> None:
    config = dataclasses.replace(FIRST_ORDER, first_order="auto", lr="auto", eps="auto")
    trajectory = Trajectory(bundle, config, len(examples))
    evaluator = StepEvaluator(Engine(bundle), examples, trajectory)
    before = evaluator.probes
    assert evaluator.first_order is not None
    assert evaluator.probes is before
    assert trajectory.drop_first_order()
    assert evaluator.first_order is None
    assert evaluator.probes is not before
    assert evaluator.probes.layout is trajectory.layout


def test_one_number_per_batch_needs_shared_probes(bundle: Bundle, examples: ExampleSet) -> None:
    made(bundle, examples, objective="f1")
    with pytest.raises(UsageError, match=r"`objective` f1: .*set `method` to n-spsa, or"):
        made(bundle, examples, objective="f1", method="auto")


@pytest.mark.parametrize(
    ("given", "batches"),
    [
        ({"steps": 3}, 3),
        ({"steps": 30}, 30),
        ({"steps": 0, "epochs": 2.0}, 8),
        ({"steps": 3, "lr": "auto"}, 16),  # that many are measured before the first step
    ],
)
def test_the_batches_of_a_run_are_known_before_it(
    bundle: Bundle, examples: ExampleSet, given: dict[str, Any], batches: int
) -> None:
    evaluator, _ = made(bundle, examples, **given)
    heavy = evaluator.heavy_batches(examples)
    own = evaluator.probes.batches
    assert [heavy.indices(n) for n in range(batches)] == [own.indices(n) for n in range(batches)]
    assert len(heavy.lengths) == batches
    other, _ = made(bundle, examples, **given, seed=BASE.seed + 1)
    assert [other.heavy_batches(examples).indices(n) for n in range(batches)] != [
        heavy.indices(n) for n in range(batches)
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"steps": 0, "epochs": 0},  # goes on for a time
        {"steps": 10**7},  # too many to look at
        {"steps": 3, "method": "mezo-svrg"},  # evaluates further batches at its anchors
    ],
)
def test_any_examples_may_come_together(
    bundle: Bundle, examples: ExampleSet, given: dict[str, Any]
) -> None:
    """Then the two longest rows are one of the batches, wherever the order has them."""
    evaluator, _ = made(bundle, examples, **given)
    heavy = evaluator.heavy_batches(examples)
    two = np.sort(examples.lengths())[-2:].tolist()
    assert two in np.sort(heavy.lengths, axis=1).tolist()


def test_added_examples_may_come_together_with_any(bundle: Bundle, examples: ExampleSet) -> None:
    """A run that is resumed has an order of its own from each step on at which some were added."""
    evaluator, _ = made(bundle, examples.first(4), steps=3)
    assert len(evaluator.heavy_batches(examples.first(4)).lengths) == 3
    heavy = evaluator.heavy_batches(examples)
    assert np.sort(examples.lengths())[-2:].tolist() in np.sort(heavy.lengths, axis=1).tolist()
