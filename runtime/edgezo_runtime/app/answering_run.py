"""What may be asked of a run while it steps, and what it tells: on the blocks that it tunes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.app.event_streams import EventHub, EventStream, Subscription
from edgezo_runtime.app.events import (
    CheckpointEvent,
    EndEvent,
    EvaluationEvent,
    Event,
    PauseEvent,
    PressureEvent,
    ResumeEvent,
)
from edgezo_runtime.budget.generation_plan import room_beside
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.prompts import Prompt, prompt_tokens
from edgezo_runtime.data.questions import QuestionSet, ask
from edgezo_runtime.data.row_reader import Fields, RowReader
from edgezo_runtime.data.sources import Source, open_reader, read_source
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import InterruptedRunError, UsageError
from edgezo_runtime.evaluation.classify import Prediction, classify
from edgezo_runtime.evaluation.evaluate import Evaluation, evaluate
from edgezo_runtime.generation.generator import GenerationConfig, Generator
from edgezo_runtime.governors import Governor
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.training.probe_evaluator import Asked
from edgezo_runtime.training.run import Run

Float32 = npt.NDArray[np.float32]


class AnsweringRun(Run):
    """A run that answers while it steps; any thread may ask.

    Args:
        engine: as for `Run`, and so on.
        examples: those the run begins with.
        config: how to tune.
        run: folder of the run.
        start: adapter to begin from.
        asked: the examples as questions, and who judges the answers.
        reader: reads rows as those of the run were read; None where they were tokens.
        governors: say when steps may be taken.

    Raises:
        UsageError: the configuration makes no sense.
    """

    def __init__(
        self,
        engine: Engine,
        examples: ExampleSet,
        config: TuneConfig,
        run: RunFolder,
        *,
        start: Adapter | None = None,
        asked: Asked | None = None,
        reader: RowReader | None = None,
        governors: Sequence[Governor] = (),
    ) -> None:
        super().__init__(
            engine, examples, config, run, start=start, asked=asked, governors=governors
        )
        self._reader = reader
        self._events = EventHub()
        self._told = 0

    # --- what was tuned ---

    def initial(self) -> dict[str, Float32]:
        """Copies of the trainables that the run began from."""
        return self.step_evaluator.initial()

    def adapter(self) -> dict[str, Float32]:
        """Copies of the tuned trainables: their running average where one is kept."""
        with self._between:
            return self.state.adapter()

    # --- answers ---

    def evaluate(self, examples: Source, batch_size: int = 32) -> Evaluation:
        """Loss (and accuracy) of the adapter.

        Args:
            examples: as for `open`; rows are read as those of the run are, and a folder's file for
                validation.
            batch_size: examples a pass; the result does not depend on it.
        Raises:
            UsageError: rows, and the tuner was opened with examples that were tokenized before.
            DataError: a row is wrong.
        """
        self.sync()
        read = self._read(examples, "valid")
        step = self.step_number
        found = evaluate(self.engine, self.adapter(), read, batch_size, scope=self.scope)
        self._events.emit(EvaluationEvent(step, str(read.path), found))
        self._tell_reliefs()
        return found

    def classify(self, row: str | Fields) -> Prediction:
        """The class of a row, by the adapter as it is now.

        Args:
            row: its fields, without a label; or the text of the one field that the template has.
        Raises:
            UsageError: there are no label words.
            DataError: the row is wrong.
        """
        return self.classify_all([row])[0]

    def classify_all(self, rows: Iterable[str | Fields], batch_size: int = 32) -> list[Prediction]:
        """The class of every row; see `classify`."""
        reader = self._text_reader()
        fields = [reader.text_row(row) if isinstance(row, str) else row for row in rows]
        if not fields:
            return []
        examples = reader.take(fields, like=self.examples, with_class=False)
        found = classify(self.engine, self.adapter(), examples, batch_size, scope=self.scope)
        self._tell_reliefs()
        return found

    def score(self, questions: QuestionSet | str | Path | Iterable[Fields]) -> float:
        """Mean score of the adapter's answers, by what the run descends.

        Args:
            questions: what is asked; rows, or a file of them, as those of the run were given.
        Raises:
            UsageError: the run descends no score of answers.
            DataError: a row is wrong.
        """
        objective = self.probe_evaluator.objective
        if not objective.has_answers:
            raise UsageError(f"objective {objective.name}: no answers are generated; use evaluate")
        if not isinstance(questions, QuestionSet):
            questions = ask(self._text_reader(), questions)
        self.sync()
        return objective.mean_score(questions, self.adapter())

    def generate(self, prompt: Prompt, writing: GenerationConfig | None = None) -> str:
        """A text that the adapter, as it is now, goes on with.

        Args:
            prompt: see `stream`, as for `writing`.
        Raises:
            UsageError: as `stream`.
        """
        return "".join(self.stream(prompt, writing))

    def stream(self, prompt: Prompt, writing: GenerationConfig | None = None) -> Iterator[str]:
        """The same piece by piece, as it is written: a token costs one token's work.

        Passes take turns with those of steps, token by token; inside `paused` nothing else runs.
        The adapter stays the one of the beginning.

        Args:
            prompt: a text; a row, for the prompt that the template makes of it; or messages of a
                conversation, for the bundle's chat template.
            writing: how; 64 tokens at most, the likeliest ones, unless it says otherwise.
        Raises:
            UsageError: the bundle cannot generate, or the prompt is empty or too long.
            DataError: a row or a message is wrong.
            DoesNotFitError: keys and values of the text are more than the budget has left.
            BudgetStopError: memory is short.
        """
        writing = writing or GenerationConfig()
        reader = self._reader or open_reader(self.engine.bundle, None, (), None)
        generator = Generator(self.engine, reader.tokenizer, scope=self.scope)
        most = self.engine.bundle.manifest.model.max_seq - writing.max_new_tokens
        tokens = prompt_tokens(reader, prompt, most)
        generator.cache_bytes = room_beside(self.engine)
        return self._pieces(generator, tokens, writing)

    def _pieces(
        self, generator: Generator, tokens: Sequence[int], writing: GenerationConfig
    ) -> Iterator[str]:
        for piece in generator.stream([tokens], self.adapter(), writing):
            if piece.shown:
                yield piece.shown
        self._tell_reliefs()

    def _read(self, source: Source, split: Literal["train", "valid"]) -> ExampleSet:
        if isinstance(source, ExampleSet):
            return source
        return read_source(self._text_reader(), source, self.examples, split=split)

    def _text_reader(self) -> RowReader:
        if self._reader is None:
            raise UsageError(
                "this tuner was opened with examples that were tokenized before; open it with "
                "rows, template and labels to give it text"
            )
        return self._reader

    # --- what is kept ---

    def sync(self) -> None:
        """Wait until all steps are on the disk: before a time in which none is taken."""
        with self._between:
            self._log.sync()

    def snapshot(self) -> None:
        """Write trainables and rule state, so that a resume has less to replay."""
        self.engine.require_here()
        with self._between:
            self._log.snapshot()
            self._events.emit(CheckpointEvent(self.step_number, self.run.snapshot))

    # --- what is told ---

    def events(self) -> EventStream:
        """The events from now on, for a thread that iterates over them; ends with `close`."""
        return self._events.stream()

    def subscribe(self, callback: Callable[[Event], object]) -> Subscription:
        """Have a function called with every event from now on, by a thread of its own.

        What it raises is logged; the run goes on.
        """
        return self._events.subscribe(callback)

    def _tell_pause(self, reason: str | None) -> None:
        if reason is not None:
            self.sync()
        step = self.step_number
        self._events.emit(ResumeEvent(step) if reason is None else PauseEvent(step, reason))

    def _tell_reliefs(self) -> None:
        """Tell what was done since the last time because memory was short."""
        with self._between:
            new = self.engine.reliefs[self._told :]
            self._told += len(new)
        for text in new:
            self._events.emit(PressureEvent(self.step_number, text))

    def _tell_end(self, error: Exception) -> None:
        if not isinstance(error, InterruptedRunError):
            text = str(error) or type(error).__name__
            self._events.emit(EndEvent(self.step_number, self.status.phase, text))
