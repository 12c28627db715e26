"""The tuner for apps: a training loop, answers meanwhile, and events of both."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.app.answerer import Answerer
from edgezo_runtime.app.background import Background
from edgezo_runtime.app.event_streams import EventStream, Subscription
from edgezo_runtime.app.events import Event, ExamplesEvent
from edgezo_runtime.app.open_run import OpenedRun, RunData, open_run
from edgezo_runtime.app.run_events import RunEvents
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.prompts import Prompt
from edgezo_runtime.data.questions import QuestionSet
from edgezo_runtime.data.row_reader import Fields
from edgezo_runtime.data.sources import Given, Source, require_alike
from edgezo_runtime.errors import InterruptedRunError, UsageError
from edgezo_runtime.evaluation.classify import Prediction
from edgezo_runtime.evaluation.evaluate import Evaluation
from edgezo_runtime.evaluation.objectives import Reward, RewardFunction
from edgezo_runtime.generation.generator import GenerationConfig
from edgezo_runtime.governors import Governor
from edgezo_runtime.governors.gate import GLANCE_S
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.system.memory_errors import budget_stop
from edgezo_runtime.system.sizes import parse_size
from edgezo_runtime.training.loop import TrainingLoop
from edgezo_runtime.training.step_report import StepReport, TunerStatus

Float32 = npt.NDArray[np.float32]

_LOG = logging.getLogger(__name__)


class Tuner:
    """Tunes the trainables of a bundle on a set of examples, and answers meanwhile.

        with Tuner.open(bundle, rows, template="{text} is about", labels=[" a", " b"]) as tuner:
            for report in tuner:
                ...

    Each step is in the journal before it is applied, so a run that was interrupted anywhere resumes
    to the same bits: the last snapshot, then the losses of the journal through the same code.

    One thread steps; other threads may call everything else meanwhile. Answers come from the same
    loaded blocks, and their passes take turns with those of the steps. Other threads see the state
    between two steps, never half of a step.

    Attributes:
        run: the parts of the run, and where it stands.
        loop: takes the steps.
        run_events: tells what happens.
        plan: of the memory; None without a budget.
    """

    def __init__(self, opened: OpenedRun) -> None:
        """Use `Tuner.open`; this does not touch the run folder."""
        self.run = opened.run
        self.plan = opened.plan
        self._longest = opened.longest
        self.run_events = RunEvents(self.run)
        self._answerer = Answerer(self.run, self.run_events, opened.reader)
        self.loop = TrainingLoop(self.run, self.run_events)
        self._steps = threading.Lock()
        self._adding = threading.Condition()
        self._stepping: int | None = None
        self._backgrounds: tuple[Background, ...] = ()

    # --- life ---

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | Path,
        examples: Given,
        config: TuneConfig | None = None,
        run: RunFolder | str | Path = "run",
        *,
        template: str | None = None,
        labels: Sequence[str] = (),
        max_seq: int | None = None,
        budget: str | int | None = None,
        governors: str | Sequence[str | Governor] = (),
        reward: RewardFunction | Reward | None = None,
        resume: bool = True,
        threads: int | None = None,
        adapter: Adapter | str | Path | None = None,
    ) -> Tuner:
        """Start a run, or resume the one in the folder.

        Where the learning rate or the perturbation scale is left to measurement, a new run begins
        with that; it takes some seconds.

        Args:
            bundle: the model.
            examples: training data: rows as dicts, a .jsonl file or a folder of such files, or
                examples or questions that were tokenized before. At least one; `add` brings more.
            config: how to tune; the defaults are meant to work.
            run: folder of the run; made if it does not exist.
            template: prompt with a row's fields in braces; None for rows that need none, see
                `RowReader`.
            labels: label words in class order, leading spaces included.
            max_seq: longest row in tokens, added rows included; longer rows are truncated. None
                takes 512, or what the model can.
            budget: limit of the resident memory of the process: "2GB", "80%", "auto", or bytes.
                What is in memory at once is planned for it, see `budget/plan.py`, and watched at
                every block; a pass that needs more is run in smaller chunks, and `step` raises
                BudgetStopError where that does not help. The smallest budget of all open tuners
                holds for the process.
            governors: when steps may be taken: names such as "battery,thermal" (see
                `edgezo_runtime.governors`) or functions.
            reward: scores generated texts, with the row that each answers; the objective is then
                the mean reward, whatever `config` says.
            resume: resume the run that the folder holds, if it holds one; it must have had the
                same bundle, data and configuration. False refuses a folder that holds a run.
            threads: compute threads of the process; None takes one per core. The first tuner of a
                process decides.
            adapter: initial adapter, its file or its run folder, in place of the bundle's initial
                trainables. A run stores a copy, and can be resumed without the original.
        Raises:
            DoesNotFitError: the budget is too small, whatever is done, or memory was refused.
            UsageError: the folder holds a run and `resume` is off, an argument makes no sense, or
                the process is a fork of one that used onnxruntime.
            DataError: a row is wrong.
            RunFileError: the run's files are damaged or belong to other inputs.
            BundleError: the bundle is damaged.
        """
        config = config or TuneConfig()
        if reward is not None:
            reward = reward if isinstance(reward, Reward) else Reward.of(reward)
            config = dataclasses.replace(config, objective="reward")
        opened = open_run(
            Bundle.open(bundle) if isinstance(bundle, str | Path) else bundle,
            RunData(examples, {}, template, labels, max_seq),
            config,
            run if isinstance(run, RunFolder) else RunFolder(Path(run)),
            budget_bytes=None if budget is None else parse_size(budget),
            threads=threads,
            governors=governors,
            reward=reward,
            adapter=adapter,
            resume=resume,
        )
        for text in opened.warnings:
            _LOG.warning("%s", text)
        tuner = cls(opened)
        tuner.start(resume=resume)
        return tuner

    def start(self, *, resume: bool = True) -> None:
        """Begin the run in the folder, or resume the one that is there; `open` does it.

        Args:
            resume: False refuses a folder that holds a run.
        Raises:
            EdgezoError: as `TrainingLoop.start`.
        """
        self.run.engine.require_here()
        with self._steps:
            self.loop.start(resume=resume)

    def close(self) -> None:
        """Make the journal durable and release the folder; the tuner cannot step any more.

        A step of another thread is given up first. In a fork of the process this does nothing: the
        run belongs to the other process.

        Raises:
            RunFileError: the disk did not take the last steps.
            UsageError: a step waits for the caller, such as a reward.
        """
        if self.run.engine.forked:
            return
        self._require_outside("close")
        self.run.closing = True
        self.stop()
        try:
            with self._steps, self.run.lock:
                self.run.close()
        finally:  # whoever waits for an event or for examples waits in vain, even if a disk is full
            with self._adding:
                self._adding.notify_all()
            for background in self._backgrounds:  # it tells that the steps have ended
                background.leave()
            self.run_events.hub.close()

    def __enter__(self) -> Tuner:
        """Return the tuner; leaving the block closes it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    # --- stepping ---

    def __iter__(self) -> Iterator[StepReport]:
        """Step until the configured number of steps or time is reached, or `stop` is called."""
        while not self.done:
            try:
                report = self.step()
            except InterruptedRunError:
                break
            yield report
        self.run_events.tell_end()

    def step(self) -> StepReport:
        """Evaluate, journal, update; wait first while the run is paused.

        Raises:
            InterruptedRunError: `stop` was called; the trainables are as before the step.
            DivergedError: a loss is not finite, or the run rolled back too often.
            RunFileError: the disk did not take the step; the tuner is closed, and a run that is
                opened again resumes from what the disk has.
            BudgetStopError: memory is short; the step was done or not, as `step_number` says, or
                the tuner is closed, and a resume begins at the last step in the journal.
            UsageError: the tuner is closed, or a step waits for the caller.
        """
        self._require_outside("step")
        with self._steps:
            self.run_events.begun = True
            self._stepping = threading.get_ident()
            try:
                report = self.loop.step()
            except MemoryError as error:  # before the update, or after it: an update ends otherwise
                failure = budget_stop(error, " between two passes")
                self.run_events.tell_end(failure)
                raise failure from error
            except Exception as error:  # of a governor as well
                self.run_events.tell_end(error)
                raise
            finally:
                self._stepping = None
            self.run_events.tell_step(report)
            return report

    def run_in_background(self, *, keep_going: bool = False) -> Background:
        """Have a thread take the steps; `close` and `stop` end it.

        Args:
            keep_going: when the run is over, wait for `add` and step again.
        """
        self.run.engine.require_here()
        background = Background(self, keep_going=keep_going)
        known = [other for other in self._backgrounds if other.running]
        self._backgrounds = (*known, background)
        return background

    # --- where the run stands ---

    @property
    def status(self) -> TunerStatus:
        """Where the run stands; never waits."""
        return self.run.status(begun=self.run_events.begun)

    @property
    def step_number(self) -> int:
        """Steps done."""
        return self.run.step_number

    @property
    def done(self) -> bool:
        """Is no step left to take?"""
        return self.run.done

    @property
    def closed(self) -> bool:
        """Was the tuner not started, or closed?"""
        return self.run.closed

    @property
    def examples(self) -> ExampleSet:
        """The training data, with what was added."""
        return self.run.examples

    # --- pausing and ending ---

    def stop(self) -> None:
        """End the steps of this tuner. A step that is running is given up where its pass meets
        the next block; any thread may call this, and a signal handler. The run can be opened again
        and resumes."""
        self.run.engine.require_here()
        self.run.gate.stop()

    def cancel(self) -> None:
        """`stop`, and return when no step is being taken and the state is on the disk.

        The tuner still answers; `open` resumes the run.

        Raises:
            RunFileError: the disk did not take the state; it has the journal.
        """
        self._require_outside("cancel")
        self.stop()
        with self._steps:
            if not self.closed:
                self.snapshot()

    def pause(self, reason: str = "paused", *, wait: bool = False) -> None:
        """Hold further steps until `resume` or `stop`.

        A step that is running is given up where its pass meets the next block, and done again
        later: the losses, and so the bits, are the same.

        Args:
            reason: what `status` and the events say.
            wait: return when no step is being taken.
        Raises:
            UsageError: `wait`, and a step waits for the caller.
        """
        self.run.engine.require_here()
        if wait:
            self._require_outside("pause")
        self.run.gate.hold(self, reason)
        if wait:
            self.run.gate.wait_until_idle()

    def resume(self) -> None:
        """Take steps again after `pause`."""
        self.run.engine.require_here()
        self.run.gate.release(self)

    @contextlib.contextmanager
    def paused(self, reason: str = "the app needs the device") -> Iterator[None]:
        """Hold steps meanwhile, besides other holds; no step is being taken inside.

        An answer inside such a block does not wait for a step's pass. A step that is given up is
        done again from its beginning: blocks that follow each other faster than a step takes keep
        the run from advancing.
        """
        self._require_outside("paused")
        key = object()
        self.run.gate.hold(key, reason)
        try:
            self.run.gate.wait_until_idle()
            yield
        finally:
            self.run.gate.release(key)

    def _require_outside(self, what: str) -> None:
        """Refuse a call that would wait for its own thread."""
        self.run.engine.require_here()
        if self._stepping == threading.get_ident() or self.run.engine.inside:
            raise UsageError(
                f"'{what}' was called by a reward or a governor, which a step waits for; have "
                f"another thread do it, or call 'stop' or 'pause' without wait"
            )

    # --- more to learn from ---

    def add(self, rows: Source) -> int:
        """Add examples; the next step uses them. They are on the disk when this returns.

        `open` finds them again, and is given the same examples as before.

        Args:
            rows: as for `open`.
        Returns:
            How many examples the run has now.
        Raises:
            DataError: a row is wrong, or does not fit those of the run.
            RunFileError: the disk did not take them; nothing was added.
            UsageError: the tuner is closed, or was not opened with rows; or the objective scores
                generated texts, which needs more of a row than the run stores.
        """
        run = self.run
        run.engine.require_here()
        objective = run.probes.objective
        if objective.has_answers:
            raise UsageError(
                f"objective {objective.name}: a run that is scored by its texts takes no further "
                f"examples; begin another run on all rows, with "
                f"adapter={str(run.folder.path)!r}"
            )
        more = self._answerer.read(rows, "train")
        require_alike(more, run.examples, self._longest, run.scope)
        with self._adding:
            with run.lock:
                count = run.log.add(more)
                run.note_progress()
            self._adding.notify_all()
        self.run_events.emit(ExamplesEvent(run.step_number, len(more), count))
        return count

    def wait_for_examples(self, timeout_s: float | None = None) -> bool:
        """Wait until a step is left to take; False if the run was stopped or time is up."""
        self.run.engine.require_here()
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._adding:
            while not self.run.gate.stopped and not self.closed:
                if not self.done:
                    return True
                left = GLANCE_S if until is None else min(GLANCE_S, until - time.monotonic())
                if left <= 0:
                    return False
                self._adding.wait(left)  # a signal's `stop` takes no lock
        return False

    # --- the state ---

    def adapter(self) -> dict[str, Float32]:
        """Copies of the tuned trainables, of their running average where there is one."""
        self.run.engine.require_here()
        return self._answerer.adapter()

    def snapshot(self) -> None:
        """Write trainables and rule state, so that a resume has less to replay."""
        run = self.run
        run.engine.require_here()
        with run.lock:
            run.log.snapshot()
            self.run_events.on_snapshot()

    # --- answers ---

    def evaluate(self, examples: Source, batch_size: int = 32) -> Evaluation:
        """Loss (and accuracy) of the adapter.

        Args:
            examples: as for `open`; of a folder, the file for validation.
            batch_size: examples per pass; the result does not depend on it.
        Raises:
            UsageError: rows, and the tuner was opened with examples that were tokenized before.
            DataError: a row is wrong.
        """
        self.run.engine.require_here()
        return self._answerer.evaluate(examples, batch_size)

    def classify(self, row: str | Fields) -> Prediction:
        """The class of a row, by the adapter as it is now.

        Args:
            row: its fields, without a label; or the text of the one field that the template has.
        """
        return self.classify_all([row])[0]

    def classify_all(self, rows: Iterable[str | Fields], batch_size: int = 32) -> list[Prediction]:
        """The class of every row; see `classify`."""
        self.run.engine.require_here()
        return self._answerer.classify(rows, batch_size)

    def score(self, questions: QuestionSet | str | Path | Iterable[Fields]) -> float:
        """Mean score of the adapter's answers, by the objective of the run.

        Args:
            questions: rows, or a file of them, as those of the run were given.
        """
        self.run.engine.require_here()
        return self._answerer.score(questions)

    def generate(self, prompt: Prompt, settings: GenerationConfig | None = None) -> str:
        """Generate a text with the adapter as it is now; arguments and errors as for `stream`."""
        return "".join(self.stream(prompt, settings))

    def stream(self, prompt: Prompt, settings: GenerationConfig | None = None) -> Iterator[str]:
        """Generate a text, and give each part as soon as it is there.

        Passes take turns with those of steps, token by token; inside `paused` nothing else runs.
        The adapter stays the one of the beginning.

        Args:
            prompt: a text; a row, for the prompt that the template makes of it; or messages of a
                conversation, for the bundle's chat template.
            settings: of the generation; None generates 64 tokens at most, the likeliest ones.
        Raises:
            UsageError: the bundle cannot generate, or the prompt is empty or too long.
            DataError: a row or a message is wrong.
            DoesNotFitError: keys and values of the text are more than the budget has left.
            BudgetStopError: memory is short.
        """
        self.run.engine.require_here()
        return self._answerer.stream(prompt, settings or GenerationConfig())

    # --- events ---

    def events(self) -> EventStream:
        """The events from now on, for a thread that iterates over them; ends with `close`."""
        self.run.engine.require_here()
        return self.run_events.hub.stream()

    def subscribe(self, callback: Callable[[Event], object]) -> Subscription:
        """Have a function called with every event from now on, by a thread of its own.

        What it raises is logged; the run goes on.
        """
        self.run.engine.require_here()
        return self.run_events.hub.subscribe(callback)

    def listen(self, callback: Callable[[Event], object]) -> None:
        """Have a function called with every event from now on, by the thread the event is from.

        That thread waits for it, between two steps. What it raises ends what the thread was doing.
        """
        self.run.engine.require_here()
        self.run_events.hub.listen(callback)
