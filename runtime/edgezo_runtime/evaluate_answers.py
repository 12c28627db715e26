"""Exact match and F1 of the answers that a model writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.answers import QuestionSet
from edgezo_runtime.generator import Generator, Writing
from edgezo_runtime.squad import exact_match, f1


@dataclass(frozen=True, slots=True)
class AnswerEvaluation:
    """Result on one set.

    Attributes:
        rows: questions.
        exact_match: share of answers that match one of the right ones.
        f1: mean F1 of their words.
        answers: what the model wrote, in file order.
    """

    rows: int
    exact_match: float
    f1: float
    answers: tuple[str, ...]


def evaluate_answers(
    generator: Generator,
    params: Mapping[str, npt.NDArray[np.float32]],
    questions: QuestionSet,
    writing: Writing,
    progress: Callable[[int, int], None] | None = None,
) -> AnswerEvaluation:
    """Have every question answered once.

    Args:
        generator: the model.
        params: every trainable input by name, without the leading axis.
        questions: what to ask.
        writing: how answers are written; spaces around them do not count.
        progress: told how far it is.
    """
    texts = generator.generate(questions.prompts, params, writing, progress)
    answers = tuple(text.stream.text.strip() for text in texts)
    pairs = list(zip(answers, questions.questions, strict=True))
    return AnswerEvaluation(
        rows=len(pairs),
        exact_match=float(np.mean([exact_match(own, q.answers) for own, q in pairs])),
        f1=float(np.mean([f1(own, q.answers) for own, q in pairs])),
        answers=answers,
    )
