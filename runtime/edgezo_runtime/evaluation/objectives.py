"""What a run descends: the loss of the rows, or a score that has no gradient.

A score counts wrong by its own measure: right classes, words in common, or whatever a function of
the user's says of a text. As a loss it is 1 minus the score, or minus a reward. Losses are all that
zeroth-order methods ask for.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.questions import Question, QuestionSet
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.forward import Params
from edgezo_runtime.engine.losses import example_losses, predictions
from edgezo_runtime.errors import RewardError, UsageError
from edgezo_runtime.evaluation.class_f1 import macro_f1
from edgezo_runtime.evaluation.squad import exact_match, f1
from edgezo_runtime.generation.generator import (
    MOST_ROWS,
    GenerationConfig,
    Generator,
    Text,
    least_rows,
)
from edgezo_runtime.generation.kv_cache import turnover
from edgezo_runtime.generation.sampling import Sampling
from edgezo_runtime.methods.estimators import Losses
from edgezo_runtime.noise import derive_seed

Float32 = npt.NDArray[np.float32]

_SHARE = 4
"""Keys and values of texts get one part in so many of a budget, where fewer at once do as well."""

RewardFunction = Callable[[str, Mapping[str, Any]], float]
"""Told a text that the model wrote, without spaces around it, and the row; the more the better."""

ANSWER_SCORES: Mapping[str, Callable[[str, Sequence[str]], float]] = {
    "exact-match": exact_match,
    "f1": f1,
}
"""Scores of a written answer against the right ones, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A function of the user's that scores texts.

    Attributes:
        name: what it is called, and a digest of its source: a run goes on with the same one only.
        function: the function.
    """

    name: str
    function: RewardFunction

    @classmethod
    def of(cls, function: RewardFunction) -> Reward:
        """A function by its own name."""
        name = f"{function.__module__}:{getattr(function, '__qualname__', type(function).__name__)}"
        try:
            source = inspect.getsource(function)
        except (OSError, TypeError):  # made at a prompt, or no function: its name has to do
            return cls(name, function)
        return cls(f"{name} sha256:{hashlib.sha256(source.encode()).hexdigest()[:16]}", function)

    def of_text(self, text: str, question: Question) -> float:
        """The reward of a text.

        Raises:
            RewardError: the function fails, or gives no finite number.
        """
        try:
            value = self.function(text, dict(question.fields))  # theirs to change
        except Exception as error:  # whatever the user's code raises
            raise RewardError(f"reward {self.name}: {type(error).__name__}: {error}") from error
        if not isinstance(value, int | float | np.number | np.bool_) or not _fits(value):
            raise RewardError(
                f"reward {self.name}: {str(value)[:60]!r} for {text[:40]!r}, expected a number"
            )
        return float(value)


@dataclass(frozen=True, slots=True)
class ClassObjective:
    """Losses of rows, or how wrong their classes are.

    Attributes:
        name: "loss", "accuracy" or "f1".
    """

    name: str

    @property
    def reward(self) -> str:
        """None has a name here."""
        return ""

    def losses(self, batch: Batch, scores: np.ndarray) -> Losses:
        """(G, E) of a batch's scores.

        F1 is one number for a whole batch, and stands at every row of it.
        """
        if self.name == "loss":
            return example_losses(batch, scores)
        chosen = predictions(batch, scores)
        if self.name == "accuracy":
            wrong: Losses = (chosen != batch.labels).astype(np.float64)
            return wrong
        classes = int(max(batch.labels.max(), chosen.max())) + 1
        found = [1 - macro_f1(batch.labels, own, classes) for own in chosen]
        return np.repeat(np.array(found)[:, None], batch.num_examples, axis=1)


@dataclass(frozen=True, slots=True)
class AnswerObjective:
    """How wrong texts are that the model writes.

    Attributes:
        name: a key of `ANSWER_SCORES`, or "reward".
        score: of a text and its question, the more the better.
        best: what is taken away from for the loss: 1 for shares of 1, 0 for rewards.
        reward: name of the user's function, if any.
        generator: writes.
        questions: what is asked, by the number of the example.
        writing: how texts are written.
    """

    name: str
    score: Callable[[str, Question], float]
    best: float
    reward: str
    generator: Generator
    questions: QuestionSet
    writing: GenerationConfig

    def losses(self, batch: Batch, params: Sequence[Params], seeds: Sequence[int]) -> Losses:
        """(G, E): have every example of a batch answered at every probe.

        Args:
            batch: the examples.
            params: G of them, for the rows of the batch.
            seeds: of the draws.
        """
        asked = [self.questions.questions[number] for number in batch.ids.tolist()]
        prompts = [question.prompt for question in asked]
        found = np.empty((len(params), len(asked)))
        for group, (own, seed) in enumerate(zip(params, seeds, strict=True)):
            texts = self.generator.generate(prompts, own, self._writing(seed))
            found[group] = self.best - self._scores(texts, asked)
        return found

    def mean_score(
        self,
        questions: QuestionSet,
        params: Mapping[str, Float32],
        progress: Callable[[int, int], None] | None = None,
    ) -> float:
        """Mean score of answers to other questions, or the same.

        Args:
            questions: what is asked.
            params: every trainable input by name, without the leading axis.
            progress: told the answers given, and those in all.
        """
        texts = self.generator.generate(questions.prompts, params, self._writing(0), progress)
        return float(self._scores(texts, questions.questions).mean())

    def _scores(self, texts: Sequence[Text], asked: Sequence[Question]) -> Losses:
        """(len(texts),) scores; a stop or a pause takes effect between two, as rewards may be
        slow."""
        found = np.empty(len(texts))
        for row, (text, question) in enumerate(zip(texts, asked, strict=True)):
            self.generator.engine.check()
            found[row] = self.score(text.stream.text.strip(), question)
        return found

    # --- memory ---

    def grant(
        self, budget_bytes: int, batch_size: int, longest: int, copy_bytes: int, *, private: bool
    ) -> int:
        """Let keys and values of texts have a part of a budget; fewer texts are written at once.

        Args:
            budget_bytes: of the process.
            batch_size: examples a step.
            longest: tokens of the longest prompt that may be asked besides those of the run.
            copy_bytes: a perturbed copy of what trains.
            private: has every text one of its own?
        Returns:
            What they take, with what attention makes of them, and the copies.
        """
        generator, new = self.generator, self.writing.max_new_tokens
        each = generator.text_bytes(max(len(prompt) for prompt in self.questions.prompts), new)
        own = copy_bytes if private else 0
        least = least_rows(2)  # of a single example a step too: others are asked at evaluations
        rows = min(MOST_ROWS, batch_size + batch_size % least)
        while rows > least and rows * (each + own) > budget_bytes // _SHARE:
            rows -= least
        generator.cache_bytes = max(rows * each, least * generator.text_bytes(longest, new))
        whole = int(generator.cache_bytes * turnover(generator.engine.bundle.manifest.graphs))
        return whole + (rows * own or 2 * copy_bytes)

    def rehearse(self, params: Params) -> None:
        """Write what takes most, two tokens of it."""
        longest = sorted(self.questions.prompts, key=len)[-MOST_ROWS:]
        short = GenerationConfig(min(2, self.writing.max_new_tokens), self.writing.sampling)
        self.generator.generate(longest, params, short)

    def _writing(self, seed: int) -> GenerationConfig:
        sampling = self.writing.sampling
        drawn = Sampling(
            sampling.temperature, sampling.top_k, sampling.top_p, derive_seed(seed, "texts")
        )
        return GenerationConfig(self.writing.max_new_tokens, drawn, self.writing.stop)


def _fits(value: float | np.number[Any] | np.bool_) -> bool:
    """Is it a number that the journal's float32 can hold?"""
    try:
        return abs(float(value)) <= float(np.finfo(np.float32).max)  # neither of inf nor of nan
    except (OverflowError, TypeError):  # a huge int; a complex number
        return False


Objective = ClassObjective | AnswerObjective


def choose_objective(
    config: TuneConfig,
    engine: Engine,
    examples: ExampleSet,
    questions: QuestionSet | None,
    scope: Scope,
    reward: Reward | None,
) -> Objective:
    """What a run descends.

    Args:
        config: names it.
        engine: the model.
        examples: training data.
        questions: the same as questions, where they were read as such.
        scope: tokens the adapters act on.
        reward: the user's function, where that is the objective.
    Raises:
        UsageError: it does not go with the data, the bundle or the method.
    """
    name, classified = config.objective, examples.kind != "completion"
    if (reward is not None) != (name == "reward"):
        raise UsageError(
            f"--objective {name}: " + ("no function was given; use --reward FILE.py:FUNCTION"
            if reward is None else "a reward was given as well; it is an objective of its own")
        )  # fmt: skip
    if name == "accuracy" and not classified:
        raise UsageError(
            "--objective accuracy: the rows have no classes; give --template and --label"
        )
    if name in ("exact-match", "reward") and classified:
        raise UsageError(f"--objective {name}: rows with label words are not answered in writing")
    if name == "loss" or classified:
        return ClassObjective(name)
    if questions is None:
        raise UsageError(
            f"--objective {name}: the rows have no answers to compare with; give them as a "
            f"QuestionSet (edgezo_runtime.data.questions.load_questions)"
        )
    generator = Generator(engine, questions.tokenizer, scope=scope)
    writing = GenerationConfig(config.max_new_tokens, Sampling(config.temperature), config.stop)
    writing.check()
    if reward is not None:
        return AnswerObjective(
            name, reward.of_text, 0.0, reward.name, generator, questions, writing
        )
    measure = ANSWER_SCORES[name]
    return AnswerObjective(
        name,
        lambda text, question: measure(text, question.answers),
        1.0,
        "",
        generator,
        questions,
        writing,
    )
