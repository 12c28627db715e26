"""How `edgezo eval` scores rows: by losses, by choices of the row, or by generated answers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from edgezo.cli.eval.settings import EvalSettings
from edgezo.cli.files.task_data import paths_of_data
from edgezo.cli.generate.loaded_generator import Tuned
from edgezo.cli.tune.evaluations import check_loss
from edgezo.wording import percent
from edgezo_runtime.budget.generation_plan import plan_generation
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.answer_room import answer_room
from edgezo_runtime.data.choices import ChoiceSet, load_choices
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.files.folders import resolve
from edgezo_runtime.data.questions import QuestionSet, make_questions
from edgezo_runtime.data.reading import Reading
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import UsageError
from edgezo_runtime.evaluation.class_f1 import macro_f1
from edgezo_runtime.evaluation.evaluate import evaluate, evaluate_answers
from edgezo_runtime.generation.generator import GenerationConfig, Generator

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Scores of an evaluation.

    Attributes:
        rows: number of rows.
        loss: mean over rows, nats.
        accuracy: share of rows with the right class or choice.
        f1: mean over the classes; of generated answers, mean over the rows.
        perplexity: exponential of the mean loss per token.
        exact_match: share of generated answers that match.
        predictions: class, choice or answer of every row, in file order; None without any.
        left: lines of the rows, if some were left out; None if all are there.
    """

    rows: int
    loss: float | None = None
    accuracy: float | None = None
    f1: float | None = None
    perplexity: float | None = None
    exact_match: float | None = None
    predictions: list[int] | list[str] | None = field(default=None, repr=False)
    left: tuple[int, ...] | None = field(default=None, repr=False)

    def scores(self) -> dict[str, Any]:
        """The scores, for machines."""
        names = ("rows", "loss", "accuracy", "f1", "perplexity", "exact_match")
        return {name: getattr(self, name) for name in names}

    def lines(self) -> list[tuple[str, str]]:
        """The scores that are not None, for people."""
        found = [("rows", str(self.rows))]
        found += [] if self.loss is None else [("loss", f"{self.loss:.4f}")]
        found += [] if self.perplexity is None else [("perplexity", f"{self.perplexity:.2f}")]
        shares = {"accuracy": self.accuracy, "exact match": self.exact_match, "F1": self.f1}
        return found + [
            (name, percent(value)) for name, value in shares.items() if value is not None
        ]


class EvalTask(Protocol):
    """Rows with their way of scoring."""

    @property
    def examples(self) -> ExampleSet:
        """The rows."""

    @property
    def predicts(self) -> bool:
        """Has every row a prediction besides its loss?"""

    def run(self, engine: Engine, tuned: Tuned, tell: Progress) -> Outcome:
        """Score the rows."""


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Rows that are scored by their losses: label words or language modelling."""

    examples: ExampleSet
    batch_size: int

    @property
    def predicts(self) -> bool:
        """True for rows with label words, whose predictions are classes."""
        return self.examples.classified

    def run(self, engine: Engine, tuned: Tuned, tell: Progress) -> Outcome:
        """Score every row once."""
        found = evaluate(
            engine, tuned.params, self.examples, self.batch_size, tell, scope=tuned.scope
        )
        check_loss(found, str(self.examples.path), engine.bundle, tuned.params)
        classified = self.examples.classified
        return Outcome(
            found.rows,
            loss=found.loss,
            accuracy=found.accuracy,
            f1=found.f1,
            perplexity=_perplexity(found.token_loss),
            predictions=found.predictions.tolist() if classified else None,
        )


@dataclass(frozen=True, slots=True)
class ChoiceRows:
    """Rows that are scored by choices of their own."""

    choices: ChoiceSet
    batch_size: int

    @property
    def examples(self) -> ExampleSet:
        """One example per choice."""
        return self.choices.examples

    @property
    def predicts(self) -> bool:
        """True: the prediction is a choice."""
        return True

    def run(self, engine: Engine, tuned: Tuned, tell: Progress) -> Outcome:
        """Score every choice once. The loss is the mean over the right choices."""
        found = evaluate(
            engine, tuned.params, self.examples, self.batch_size, tell, scope=tuned.scope
        )
        check_loss(found, str(self.examples.path), engine.bundle, tuned.params)
        chosen, labels = self.choices.predictions(found.losses), self.choices.labels
        starts = np.searchsorted(self.choices.rows, np.arange(len(labels)))
        return Outcome(
            len(labels),
            loss=float(found.losses[starts + labels].mean()),
            accuracy=float((chosen == labels).mean()),
            f1=macro_f1(labels, chosen, int(max(labels.max(), chosen.max())) + 1),
            predictions=chosen.tolist(),
        )


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """Rows that are scored by generated answers."""

    questions: QuestionSet
    tokenizer: TextTokenizer
    config: GenerationConfig
    budget: int | None

    @property
    def examples(self) -> ExampleSet:
        """The rows as examples."""
        return self.questions.examples

    @property
    def predicts(self) -> bool:
        """True: the prediction is an answer."""
        return True

    def run(self, engine: Engine, tuned: Tuned, tell: Progress) -> Outcome:
        """Generate an answer to every question."""
        generator = Generator(engine, self.tokenizer, scope=tuned.scope)
        if self.budget is not None:
            sizes = [len(prompt) for prompt in self.questions.prompts]
            plan = plan_generation(generator, sizes, tuned.params, self.config, self.budget)
            plan.apply(generator)
        found = evaluate_answers(generator, tuned.params, self.questions, self.config, tell)
        return Outcome(
            found.rows,
            f1=found.f1,
            exact_match=found.exact_match,
            predictions=list(found.answers),
        )


def read_rows_to_score(
    settings: EvalSettings,
    reading: Reading,
    config: GenerationConfig,
    bundle: Bundle,
    tokenizer: TextTokenizer,
    budget: int | None,
    tell: Callable[[int, int], None],
) -> EvalTask:
    """Read the rows for the way of scoring that the settings choose.

    Args:
        settings: the options.
        reading: template, label words and longest row.
        config: how answers are generated.
        bundle: the model.
        tokenizer: the bundle's.
        budget: in bytes; None sets no limit.
        tell: as for `RowReader`.
    Raises:
        EdgezoError: the rows cannot be read, or not for that way of scoring.
    """
    source = resolve(paths_of_data(settings.data), settings.split)
    limit = settings.limit or None
    template, longest = reading.template, reading.max_seq
    if settings.choices is not None:
        if template is None:
            raise UsageError("--choices: choices need a prompt; give --template '{field} ...'")
        choices = load_choices(
            source, tokenizer, template=template, field=settings.choices, max_seq=longest,
            limit=limit, long=reading.long,
        )  # fmt: skip
        return ChoiceRows(choices, settings.batch_size)
    reader = RowReader(tokenizer, **reading.settings(), tell=tell)
    if settings.answers:
        room = answer_room(bundle.manifest.model.max_seq, config.max_new_tokens)
        asking = dataclasses.replace(reader, labels=(), max_seq=min(longest, room))
        questions = make_questions(asking, source, limit=limit)
        return AnsweredRows(questions, tokenizer, config, budget)
    return ScoredRows(reader.read(source, limit=limit), settings.batch_size)


def _perplexity(token_loss: float | None) -> float | None:
    """Exponential of the mean loss per token; None without a loss, or where it overflows."""
    return None if token_loss is None or token_loss > 700 else math.exp(token_loss)
