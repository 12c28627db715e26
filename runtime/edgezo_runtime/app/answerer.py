"""Answers during a run, from the loaded blocks and the current adapter."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgezo_runtime.app.best_keeper import BestKeeper
from edgezo_runtime.app.events import EvaluationEvent
from edgezo_runtime.app.run_events import RunEvents
from edgezo_runtime.budget.generation_plan import room_beside
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.prompts import Prompt, prompt_tokens
from edgezo_runtime.data.questions import QuestionSet, make_questions
from edgezo_runtime.data.row_reader import Fields, RowReader
from edgezo_runtime.data.sources import Source, open_reader, read_source
from edgezo_runtime.errors import UsageError
from edgezo_runtime.evaluation.classify import Prediction, classify
from edgezo_runtime.evaluation.evaluate import Evaluation, evaluate
from edgezo_runtime.generation.generator import GenerationConfig, Generator
from edgezo_runtime.training.run import Run

_LOG = logging.getLogger(__name__)

Float32 = npt.NDArray[np.float32]


class Answerer:
    """Evaluates, classifies and generates with the adapter of a run; any thread may call it.

    Its passes take turns with those of the steps.

    Args:
        run: the run.
        events: events of the run.
        reader: reads rows like those of the run; None if the run was given tokens.
        keeper: records evaluations on the rows for validation.
    """

    def __init__(
        self, run: Run, events: RunEvents, reader: RowReader | None, keeper: BestKeeper
    ) -> None:
        self._run = run
        self._keeper = keeper
        self._events = events
        self.reader = reader

    def adapter(self) -> dict[str, Float32]:
        """Copies of the trainables; those that train as their running average, if there is one."""
        with self._run.lock:
            return self._run.state.adapter()

    def evaluate(self, examples: Source | None, batch_size: int) -> Evaluation:
        """Loss (and accuracy) of the adapter; arguments as for `Tuner.evaluate`."""
        run, own = self._run, examples is None
        read = self._validation_rows() if examples is None else self.read(examples, "valid")
        with run.lock:  # the steps before the state are on the disk, no later one is in it
            run.sync()
            step, seconds, params = run.step_number, run.state.elapsed_s, run.state.adapter()
        started = time.monotonic()
        found = evaluate(run.engine, params, read, batch_size, scope=run.scope)
        if own:
            questions, objective, answers = self._keeper.questions, run.probes.objective, None
            if objective.has_answers and questions is not None:
                answers = objective.mean_score(questions, params)
            took_s = time.monotonic() - started
            self._keeper.note(step, seconds, params, found, answers=answers, took_s=took_s)
        self._events.emit(EvaluationEvent(step, str(read.path), found))
        self._events.tell_reliefs()
        return found

    def _validation_rows(self) -> ExampleSet:
        if self._keeper.rows is None:
            raise UsageError(
                "the run has no rows for validation; name rows, or open the tuner with `valid`"
            )
        return self._keeper.rows

    def classify(self, rows: Iterable[str | Fields], batch_size: int) -> list[Prediction]:
        """The class of every row; arguments as for `Tuner.classify_all`."""
        run, reader = self._run, self.require_reader()
        fields = [reader.text_row(row) if isinstance(row, str) else row for row in rows]
        if not fields:
            return []
        examples = reader.take(fields, like=run.examples, with_class=False)
        found = classify(run.engine, self.adapter(), examples, batch_size, scope=run.scope)
        self._events.tell_reliefs()
        return found

    def score(self, questions: QuestionSet | str | Path | Iterable[Fields]) -> float:
        """Mean score of the adapter's answers; arguments as for `Tuner.score`."""
        objective = self._run.probes.objective
        if not objective.has_answers:  # before rows are read as questions, which they may not be
            raise UsageError(
                f"`objective` {objective.name}: no answers are generated; use evaluate"
            )
        if not isinstance(questions, QuestionSet):
            questions = make_questions(self.require_reader(), questions)
        self._run.sync()
        return objective.mean_score(questions, self.adapter())

    def stream(self, prompt: Prompt, settings: GenerationConfig) -> Iterator[str]:
        """Generate a text in deltas; arguments as for `Tuner.stream`."""
        engine = self._run.engine
        reader = self.reader or open_reader(engine.bundle, None, (), None)
        generator = Generator(engine, reader.tokenizer, scope=self._run.scope)
        most = engine.bundle.manifest.model.max_seq - settings.max_new_tokens
        tokens = prompt_tokens(reader, prompt, most)  # the generator refuses what leaves no room
        generator.cache_bytes = room_beside(engine)
        return self._texts(generator, tokens, settings)

    def _texts(
        self, generator: Generator, tokens: Sequence[int], settings: GenerationConfig
    ) -> Iterator[str]:
        for delta in generator.stream([tokens], self.adapter(), settings):
            if delta.shown:
                yield delta.shown
        self._events.tell_reliefs()

    def read(self, source: Source, split: Literal["train", "valid"]) -> ExampleSet:
        """Make examples of rows, as those of the run were made, and log the warnings."""
        if isinstance(source, ExampleSet):
            return source
        found = read_source(self.require_reader(), source, self._run.examples, split=split)
        for warning in found.warnings:
            _LOG.warning("%s: %s", found.path, warning.message)
        return found

    def require_reader(self) -> RowReader:
        """The reader of rows.

        Raises:
            UsageError: the tuner was opened with tokenized examples.
        """
        if self.reader is None:
            raise UsageError(
                "the tuner was opened with tokenized examples and cannot read rows; open it with "
                "rows, `template` and `labels`"
            )
        return self.reader
