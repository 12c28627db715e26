"""What a run minimizes: the loss of the rows, or a score that has no gradient.

A score is the share of right classes, the overlap of words, or the value of a user's function of a
text. The loss is 1 minus the score, or minus the reward. Zeroth-order methods need only losses.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.questions import Question, QuestionSet
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.losses import example_losses, predictions
from edgezo_runtime.engine.params import Params
from edgezo_runtime.errors import RewardError, UsageError
from edgezo_runtime.evaluation.class_f1 import macro_f1
from edgezo_runtime.evaluation.squad import exact_match, f1
from edgezo_runtime.generation.generator import (
    MOST_ROWS,
    GenerationConfig,
    Generator,
    least_rows,
)
from edgezo_runtime.generation.kv_cache import turnover
from edgezo_runtime.generation.sampling import Sampling
from edgezo_runtime.generation.text_reader import Text
from edgezo_runtime.methods.estimators import Losses
from edgezo_runtime.noise import derive_seed

Float32 = npt.NDArray[np.float32]

_SHARE = 4
"""Fewer texts are generated at once until they fit into the budget divided by this number."""

RewardFunction = Callable[[str, Mapping[str, Any]], float]
"""Given a generated text, without spaces around it, and the row; more is better."""

ANSWER_SCORES: Mapping[str, Callable[[str, Sequence[str]], float]] = {
    "exact-match": exact_match,
    "f1": f1,
}
"""Scores of a generated answer against the right ones, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A user's function that scores texts.

    Attributes:
        name: its name, and a digest of its source: a run resumes with the same function only.
        function: the function.
    """

    name: str
    function: RewardFunction

    @classmethod
    def of(cls, function: RewardFunction) -> Reward:
        """Name a function after itself and its source."""
        name = f"{function.__module__}:{getattr(function, '__qualname__', type(function).__name__)}"
        try:
            source = inspect.getsource(function)
        except (OSError, TypeError):  # made at a prompt, or no plain function
            return cls(name, function)
        return cls(f"{name} sha256:{hashlib.sha256(source.encode()).hexdigest()[:16]}", function)

    def of_text(self, text: str, question: Question) -> float:
        """Compute the reward of a text.

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
class Probed:
    """A batch at G probes.

    Attributes:
        batch: E examples.
        scores: of one pass over the batch, as `Engine.score` gives them; None where the objective
            scores answers.
        params: makes the trainable inputs of each probe, for the rows of the batch.
        seed: seed of sampling. All probes share it, so that they differ in their weights only.
    """

    batch: Batch
    scores: Float32 | None
    params: Callable[[], Sequence[Params]]
    seed: int


class Objective(Protocol):
    """What a run minimizes."""

    @property
    def name(self) -> str:
        """The value of `TuneConfig.objective`."""

    @property
    def reward(self) -> str:
        """Name of the user's function; empty if there is none."""

    @property
    def has_answers(self) -> bool:
        """Are answers generated and scored, instead of rows?"""

    @property
    def whole_batch(self) -> bool:
        """Is the loss one number for a batch, instead of one per example?"""

    def losses(self, probed: Probed) -> Losses:
        """Compute the losses to minimize, (G, E)."""

    def mean_score(
        self,
        questions: QuestionSet,
        params: Mapping[str, Float32],
        progress: Callable[[int, int], None] | None = None,
    ) -> float:
        """Compute the mean score of generated answers.

        Args:
            questions: those of the run, or others.
            params: every trainable input by name, without the leading axis.
            progress: told the number of answers so far, and of all.
        Raises:
            UsageError: no answers are generated.
        """

    def cache_memory(
        self, budget_bytes: int, batch_size: int, longest: int, copy_bytes: int, *, private: bool
    ) -> int:
        """Limit how many texts are generated at once, so that they fit into a part of a budget.

        Args:
            budget_bytes: budget of the process.
            batch_size: examples per step.
            longest: tokens of the longest prompt among questions that the run does not train on.
            copy_bytes: bytes of a perturbed copy of the trainables.
            private: has every text a copy of its own?
        Returns:
            Bytes of the keys and values, of the new ones that attention makes, and of the copies;
            0 if no text is generated.
        """

    def rehearse(self, params: Params) -> None:
        """Generate the texts that take most memory; do nothing if no text is generated."""


@dataclass(frozen=True, slots=True)
class ClassObjective:
    """Losses of rows, or how often their classes are wrong.

    Attributes:
        name: "loss", "accuracy" or "f1".
    """

    name: str

    @property
    def reward(self) -> str:
        """Always empty: the objective has no user function."""
        return ""

    @property
    def has_answers(self) -> bool:
        """Always False: rows are scored."""
        return False

    @property
    def whole_batch(self) -> bool:
        """True for F1, which is one number per batch."""
        return self.name == "f1"

    def losses(self, probed: Probed) -> Losses:
        """Compute losses (G, E) from the scores of a batch.

        F1 is one number for a whole batch, and stands at every row of it.
        """
        batch, scores = probed.batch, probed.scores
        assert scores is not None
        if self.name == "loss":
            return example_losses(batch, scores)
        chosen = predictions(batch, scores)
        if self.name == "accuracy":
            wrong: Losses = (chosen != batch.labels).astype(np.float64)
            return wrong
        classes = int(max(batch.labels.max(), chosen.max())) + 1
        found = [1 - macro_f1(batch.labels, own, classes) for own in chosen]
        return np.repeat(np.array(found)[:, None], batch.num_examples, axis=1)

    def mean_score(
        self,
        questions: QuestionSet,
        params: Mapping[str, Float32],
        progress: Callable[[int, int], None] | None = None,
    ) -> float:
        """Refuse, as no answers are generated.

        Raises:
            UsageError: no answers are generated.
        """
        raise UsageError(f"objective {self.name}: no answers are generated; use evaluate")

    def cache_memory(
        self, budget_bytes: int, batch_size: int, longest: int, copy_bytes: int, *, private: bool
    ) -> int:
        """Always 0: no text is generated."""
        return 0

    def rehearse(self, params: Params) -> None:
        """Do nothing: no text is generated."""


@dataclass(frozen=True, slots=True)
class AnswerObjective:
    """How wrong generated texts are.

    Attributes:
        name: a key of `ANSWER_SCORES`, or "reward".
        score: of a text and its question; more is better.
        best: the score whose loss is 0: 1 for scores up to 1, 0 for rewards.
        reward: name of the user's function; empty if there is none.
        generator: generates the texts.
        questions: the questions, by the number of the example.
        generation: how texts are generated.
    """

    name: str
    score: Callable[[str, Question], float]
    best: float
    reward: str
    generator: Generator
    questions: QuestionSet
    generation: GenerationConfig

    @property
    def has_answers(self) -> bool:
        """Always True: answers are generated and scored."""
        return True

    @property
    def whole_batch(self) -> bool:
        """Always False: every text has a score."""
        return False

    def losses(self, probed: Probed) -> Losses:
        """Generate and score an answer for every example at every probe, (G, E)."""
        params = probed.params()
        questions = [self.questions.questions[number] for number in probed.batch.ids.tolist()]
        prompts = [question.prompt for question in questions]
        found = np.empty((len(params), len(questions)))
        for group, own in enumerate(params):
            texts = self.generator.generate(prompts, own, self._drawn(probed.seed))
            found[group] = self.best - self._scores(texts, questions)
        return found

    def mean_score(
        self,
        questions: QuestionSet,
        params: Mapping[str, Float32],
        progress: Callable[[int, int], None] | None = None,
    ) -> float:
        """Compute the mean score of generated answers; see `Objective`."""
        texts = self.generator.generate(questions.prompts, params, self._drawn(0), progress)
        return float(self._scores(texts, questions.questions).mean())

    def _scores(self, texts: Sequence[Text], questions: Sequence[Question]) -> Losses:
        """Score texts, (len(texts),).

        A stop or a pause takes effect between two texts, as rewards may be slow.
        """
        found = np.empty(len(texts))
        for row, (text, question) in enumerate(zip(texts, questions, strict=True)):
            self.generator.engine.check()
            found[row] = self.score(text.stream.text.strip(), question)
        return found

    # --- memory ---

    def cache_memory(
        self, budget_bytes: int, batch_size: int, longest: int, copy_bytes: int, *, private: bool
    ) -> int:
        """Limit how many texts are generated at once; see `Objective`."""
        generator, new = self.generator, self.generation.max_new_tokens
        each = generator.text_bytes(max(len(prompt) for prompt in self.questions.prompts), new)
        own = copy_bytes if private else 0
        least = least_rows(2)  # with one example per step as well: evaluations ask more
        rows = min(MOST_ROWS, batch_size + batch_size % least)
        while rows > least and rows * (each + own) > budget_bytes // _SHARE:
            rows -= least
        generator.cache_bytes = max(rows * each, least * generator.text_bytes(longest, new))
        whole = int(generator.cache_bytes * turnover(generator.engine.bundle.manifest.graphs))
        return whole + (rows * own or 2 * copy_bytes)

    def rehearse(self, params: Params) -> None:
        """Generate two tokens of the texts that take most memory."""
        longest = sorted(self.questions.prompts, key=len)[-MOST_ROWS:]
        short = GenerationConfig(min(2, self.generation.max_new_tokens), self.generation.sampling)
        self.generator.generate(longest, params, short)

    def _drawn(self, seed: int) -> GenerationConfig:
        """How texts are generated, with the draws of a seed."""
        sampling = self.generation.sampling
        drawn = Sampling(
            sampling.temperature, sampling.top_k, sampling.top_p, derive_seed(seed, "texts")
        )
        return GenerationConfig(self.generation.max_new_tokens, drawn, self.generation.stop)


def _fits(value: float | np.number[Any] | np.bool_) -> bool:
    """Is it a number that the journal's float32 can hold?"""
    try:
        return abs(float(value)) <= float(np.finfo(np.float32).max)  # neither of inf nor of nan
    except (OverflowError, TypeError):  # a huge int; a complex number
        return False


def choose_objective(
    config: TuneConfig,
    engine: Engine,
    examples: ExampleSet,
    questions: QuestionSet | None,
    scope: Scope,
    reward: Reward | None,
) -> Objective:
    """Choose what a run minimizes.

    Args:
        config: names the objective.
        engine: the model.
        examples: training data.
        questions: the training data as questions, if it was read as such.
        scope: tokens the adapters act on.
        reward: the user's function, where that is the objective.
    Raises:
        UsageError: the objective does not go with the data, the bundle or the method.
    """
    name, classified = config.objective, examples.classified
    if (reward is not None) != (name == "reward"):
        reason = (
            "no function was given; set `reward`"
            if reward is None
            else "a reward was given as well; it is an objective of its own"
        )
        raise UsageError(f"`objective` {name}: {reason}")
    if name == "accuracy" and not classified:
        raise UsageError(
            f"`objective` {name}: the rows have no classes; set `template` and `label`"
        )
    if name in ("exact-match", "reward") and classified:
        raise UsageError(f"`objective` {name}: no answers are generated for rows with label words")
    if name == "loss" or classified:
        return ClassObjective(name)
    if questions is None:
        raise UsageError(
            f"`objective` {name}: the rows have no answers to compare with; give them as a "
            f"QuestionSet (edgezo_runtime.data.questions.load_questions)"
        )
    generator = Generator(engine, questions.tokenizer, scope=scope)
    generation = GenerationConfig(config.max_new_tokens, Sampling(config.temperature), config.stop)
    generation.check()
    if reward is not None:
        return AnswerObjective(
            name, reward.of_text, 0.0, reward.name, generator, questions, generation
        )
    measure = ANSWER_SCORES[name]
    return AnswerObjective(
        name,
        lambda text, question: measure(text, question.answers),
        1.0,
        "",
        generator,
        questions,
        generation,
    )
