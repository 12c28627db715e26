"""When a run evaluates: how often, at equal distances, and no more than it can afford."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgezo_runtime.training.evaluation_times import (
    AUTO,
    SHARE,
    cost_in_steps,
    intervals,
    is_due,
)
from tests.runtime.tiny_sets import random_set


def steps_evaluated(steps: int, cost_s: float, *, step_s: float = 1.0, every: float | str = AUTO):
    """The steps of a run after which it evaluates."""
    found, last = [], (0.0, 0.0)
    for step in range(1, steps):
        now = (step / steps, step * step_s)
        if is_due(every, now, last, cost_s):  # type: ignore[arg-type]
            found.append(step)
            last = now
    return found


@pytest.mark.parametrize("steps", [8, 9, 16, 23, 100, 1000])
def test_seven_evaluations_at_equal_distances(steps: int) -> None:
    found = steps_evaluated(steps, 0.0)
    assert found == [-(-part * steps // 8) for part in range(1, 8)]


def test_short_runs_evaluate_after_every_step() -> None:
    assert steps_evaluated(4, 0.0) == [1, 2, 3]
    assert steps_evaluated(1, 0.0) == []


@pytest.mark.parametrize("cost", [0.5, 1.0, 1.4, 1.5, 3.3, 9.9, 10.0, 10.1, 50.0])
def test_evaluations_take_a_tenth_of_the_run_at_most(cost: float) -> None:
    found = steps_evaluated(100, cost)
    assert len(found) * cost <= SHARE * 100
    more = {0: 1, 1: 3, 3: 7}.get(len(found))
    assert more is None or more * cost > SHARE * 100


def test_fewer_evaluations_are_among_more() -> None:
    most = steps_evaluated(64, 0.0)
    for cost in (1.0, 2.0, 6.0):
        assert {*steps_evaluated(64, cost)} < {*most}


def test_the_number_of_parts() -> None:
    assert [intervals(100.0, cost) for cost in (0.0, 1.4, 1.5, 3.3, 3.4, 10.0, 10.1)] == [
        8, 8, 4, 4, 2, 2, 1,
    ]  # fmt: skip


def test_by_time() -> None:
    assert steps_evaluated(20, 99.0, every=5.0) == [5, 10, 15]
    assert steps_evaluated(20, 0.0, step_s=2.0, every=5.0) == [3, 5, 8, 10, 13, 15, 18]
    assert steps_evaluated(20, 0.0, every=0.0) == []


def test_an_evaluation_that_a_crash_prevented_is_due_at_once() -> None:
    assert is_due(AUTO, (0.5, 50.0), (0.375, 37.5), 0.1)
    assert not is_due(AUTO, (0.5, 50.0), (0.5, 50.0), 0.1)
    assert is_due(10.0, (0.5, 50.0), (0.4, 49.0), 0.1)
    assert not is_due(10.0, (0.5, 55.0), (0.4, 50.0), 0.1)


@pytest.mark.parametrize(
    ("scope", "estimated", "first_order", "carried", "steps"),
    [
        ("all", [], [0, 1], None, 30 / (5 * 4 * 3)),
        ("all", [0, 1], [], None, 30 / (5 * 4 * 2)),
        ("all", [0], [1], None, 30 / (5 * 4 * 5)),
        ("answer", [], [0, 1], None, 4 * 30 / (5 * 4 * 3)),
        ("answer", [], [], None, 4 * 30 / (5 * 4 * 1)),
        ("all", [], [0, 1], object(), 30 / (5 * 4 * 1)),
    ],
)
def test_the_cost_of_an_evaluation_in_steps(
    scope: str, estimated: list[int], first_order: list[int], carried: object, steps: float
) -> None:
    """Three rows of ten tokens, against four rows a step of five tokens each.

    A run that does neither learns feedback: most of its steps are one pass, as those are that carry
    errors without backward graphs.
    """
    feedback = None if estimated or first_order else object()
    layout = SimpleNamespace(blocks=estimated, feedback=feedback, carried=carried)
    run: Any = SimpleNamespace(
        examples=random_set("labels", (4, 6, 5), 0),
        scope=scope,
        groups=2,
        batch_size=4,
        first_order_blocks=first_order,
        trajectory=SimpleNamespace(layout=layout),
    )
    assert cost_in_steps(run, random_set("labels", (10, 10, 10), 0)) == pytest.approx(steps)
