"""What an objective needs that scores generated answers."""

from __future__ import annotations

from dataclasses import dataclass

from edgezo_runtime.data.questions import QuestionSet
from edgezo_runtime.evaluation.objectives import Reward


@dataclass(frozen=True, slots=True)
class AnswerTask:
    """The examples as questions, where the objective scores generated answers.

    Attributes:
        questions: in the order of the examples.
        reward: the user's function that scores answers.
    """

    questions: QuestionSet | None = None
    reward: Reward | None = None
