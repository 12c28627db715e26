"""Losses and scores of a set of trainables on a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import SequentialBatches
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.questions import QuestionSet
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.losses import example_losses, predictions
from edgezo_runtime.engine.pair_losses import losses_of, repeated, similarities
from edgezo_runtime.evaluation.class_f1 import macro_f1
from edgezo_runtime.evaluation.squad import exact_match, f1
from edgezo_runtime.generation.generator import GenerationConfig, Generator

Progress = Callable[[int, int], None]
"""Given the number of rows done, and of all rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Losses and scores of rows on one set.

    Attributes:
        rows: examples.
        loss: mean over examples, nats.
        accuracy: share of right classes; None where there are none.
        f1: mean over the classes of their F1; None where there are none.
        token_loss: mean over the scored tokens of all rows, nats; None where there are classes.
        predictions: (rows,) class of each example in file order, empty where there are none.
        losses: (rows,) loss of each, nats.
    """

    rows: int
    loss: float
    accuracy: float | None
    f1: float | None
    token_loss: float | None
    predictions: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]


def evaluate(
    engine: Engine,
    params: Mapping[str, npt.NDArray[np.float32]],
    examples: ExampleSet,
    batch_size: int = 32,
    progress: Progress | None = None,
    *,
    scope: Scope,
) -> Evaluation:
    """Score every example once.

    Args:
        engine: the model.
        params: every trainable input by name, without the leading axis.
        examples: what to score.
        batch_size: examples per pass; the result does not depend on it.
        progress: given the rows done and all rows.
        scope: tokens that the adapters act on.
    """
    if examples.kind == "pairs":
        return evaluate_pairs(engine, params, examples, batch_size, progress)
    shared = SharedParams(params)
    losses = np.empty(len(examples), np.float64)
    chosen = np.full(len(examples), -1, np.int64)
    labels = np.full(len(examples), -1, np.int64)
    counts = np.zeros(len(examples), np.int64)
    done = 0
    if progress is not None:
        progress(0, len(examples))
    for batch in SequentialBatches(examples, batch_size):
        scores = engine.score(batch, shared, scope=scope)
        losses[batch.ids] = example_losses(batch, scores)[0]
        labels[batch.ids] = batch.labels
        counts[batch.ids] = np.bincount(batch.row_example[batch.positions[:, 0]])
        if examples.classified:
            chosen[batch.ids] = predictions(batch, scores)[0]
        done += batch.num_examples
        if progress is not None:
            progress(done, len(examples))
    classified = examples.classified
    return Evaluation(
        rows=len(examples),
        loss=float(losses.mean()),
        accuracy=float((chosen == labels).mean()) if classified else None,
        f1=macro_f1(labels, chosen, examples.num_classes) if classified else None,
        token_loss=None if classified else float((losses * counts).sum() / counts.sum()),
        predictions=chosen if classified else np.empty(0, np.int64),
        losses=losses,
    )


def evaluate_pairs(
    engine: Engine,
    params: Mapping[str, npt.NDArray[np.float32]],
    examples: ExampleSet,
    batch_size: int,
    progress: Progress | None,
) -> Evaluation:
    """Compare every first text of a set of pairs with all second ones.

    Accuracy is the share of first texts to which no second text is nearer than their own.

    Args:
        engine: the model.
        params: every trainable input by name, without the leading axis.
        examples: pairs of texts.
        batch_size: examples per pass; the result does not depend on it.
        progress: given the rows done and all rows.
    """
    count, width = len(examples), engine.bundle.manifest.model.hidden_size
    vectors = np.empty((count, 2, width), np.float64)
    done = 0
    if progress is not None:
        progress(0, len(examples))
    for batch in SequentialBatches(examples, batch_size):
        found = engine.score(batch, SharedParams(params))[0].reshape(-1, 2, width)
        vectors[batch.ids] = found
        done += batch.num_examples
        if progress is not None:
            progress(done, count)
    same = repeated([e.tokens[int(e.places[0]) + 1 :].tobytes() for e in examples])
    first, second = vectors[:, 0], vectors[:, 1]
    losses = losses_of(first, second, same)
    nearest = similarities(first, second, same).argmax(axis=1)
    return Evaluation(
        rows=count,
        loss=float(losses.mean()),
        accuracy=float((nearest == np.arange(count)).mean()),
        f1=None,
        token_loss=None,
        predictions=nearest.astype(np.int64),
        losses=losses,
    )


@dataclass(frozen=True, slots=True)
class AnswerEvaluation:
    """Scores of generated answers on one set.

    Attributes:
        rows: questions.
        exact_match: share of answers that match one of the right ones.
        f1: mean F1 of their words.
        answers: the generated answers, in file order.
    """

    rows: int
    exact_match: float
    f1: float
    answers: tuple[str, ...]


def evaluate_answers(
    generator: Generator,
    params: Mapping[str, npt.NDArray[np.float32]],
    questions: QuestionSet,
    config: GenerationConfig,
    progress: Callable[[int, int], None] | None = None,
) -> AnswerEvaluation:
    """Generate an answer to every question.

    Args:
        generator: the model.
        params: every trainable input by name, without the leading axis.
        questions: what to ask.
        config: how answers are generated; spaces around them do not count.
        progress: given the rows done and all rows.
    """
    texts = generator.generate(questions.prompts, params, config, progress)
    answers = tuple(text.stream.text.strip() for text in texts)
    pairs = list(zip(answers, questions.questions, strict=True))
    return AnswerEvaluation(
        rows=len(pairs),
        exact_match=float(np.mean([exact_match(own, q.answers) for own, q in pairs])),
        f1=float(np.mean([f1(own, q.answers) for own, q in pairs])),
        answers=answers,
    )
