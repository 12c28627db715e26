"""Which of the evaluated states of a run is the best, by its rows for validation."""

from __future__ import annotations

from collections.abc import Iterable

from edgezo_runtime.evaluation.evaluate import Evaluation
from edgezo_runtime.evaluation.objectives import Objective
from edgezo_runtime.journal.evaluation_record import EvaluationRecord


def best_of(records: Iterable[EvaluationRecord]) -> EvaluationRecord | None:
    """The best state after at least one step; None if none was evaluated.

    Scores go before losses, and the fewest steps before more of them.

    Args:
        records: evaluations on the same rows, by the same objective.
    """
    return min((own for own in records if own.step > 0), key=_rank, default=None)


def initial_is_best(records: Iterable[EvaluationRecord]) -> bool:
    """Is the initial adapter better than every other that was evaluated?"""
    ranked = sorted(records, key=_rank)
    return len(ranked) > 1 and ranked[0].step == 0 and _rank(ranked[0])[:2] < _rank(ranked[1])[:2]


def validation_score(
    objective: Objective, found: Evaluation, answers: float | None
) -> float | None:
    """What an objective makes of an evaluation; None where it is the loss.

    Args:
        objective: of the run.
        found: losses and classes of the rows.
        answers: mean score of generated answers; None where none are generated.
    """
    if objective.has_answers:
        return answers
    return {"accuracy": found.accuracy, "f1": found.f1}.get(objective.name)


def _rank(record: EvaluationRecord) -> tuple[float, float, int]:
    """The lower the better."""
    return (-(record.score or 0.0), record.loss, record.step)
