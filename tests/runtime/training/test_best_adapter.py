"""The best of the evaluated states: by score, then by loss, after at least one step."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from edgezo_runtime.journal.evaluation_record import EvaluationRecord
from edgezo_runtime.training.best_adapter import best_of, initial_is_best, validation_score


def record(step: int, loss: float, score: float | None = None) -> EvaluationRecord:
    return EvaluationRecord(step, float(step), loss, score=score)


@pytest.mark.parametrize(
    ("records", "step", "initial"),
    [
        ([], None, False),
        ([record(0, 1.0)], None, False),
        ([record(0, 2.0), record(4, 1.5), record(8, 1.0)], 8, False),
        ([record(0, 2.0), record(4, 1.0), record(8, 1.5)], 4, False),
        ([record(0, 1.0), record(4, 1.5), record(8, 1.2)], 8, True),
        ([record(0, 1.0), record(4, 1.0)], 4, False),  # no better than a tuned one
        ([record(4, 1.0), record(8, 1.0)], 4, False),  # fewer steps
        ([record(0, 2.0, 0.5), record(4, 1.0, 0.6), record(8, 3.0, 0.7)], 8, False),
        ([record(0, 2.0, 0.9), record(4, 1.0, 0.6), record(8, 0.5, 0.6)], 8, True),
        ([record(0, 9.0, -3.0), record(4, 9.0, -1.0), record(8, 1.0, -2.0)], 4, False),
        ([record(0, 1.0, 0.0), record(4, 2.0, 0.0)], 4, True),
    ],
)
def test_the_best(records: list[EvaluationRecord], step: int | None, initial: bool) -> None:
    for order in itertools.permutations(records):
        found = best_of(order)
        assert (None if found is None else found.step) == step
        assert initial_is_best(order) is initial


@pytest.mark.parametrize(
    ("name", "has_answers", "score"),
    [
        ("loss", False, None),
        ("accuracy", False, 0.5),
        ("f1", False, 0.25),
        ("f1", True, 0.75),
        ("reward", True, 0.75),
        ("exact-match", True, 0.75),
    ],
)
def test_the_score_is_what_the_objective_maximizes(
    name: str, has_answers: bool, score: float | None
) -> None:
    objective: Any = SimpleNamespace(name=name, has_answers=has_answers)
    found: Any = SimpleNamespace(accuracy=0.5, f1=0.25, loss=9.0)
    assert validation_score(objective, found, 0.75 if has_answers else None) == score
