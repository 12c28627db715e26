"""The tuner for apps: a training loop, answers between its steps, and events of both."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.app.added_examples import AddedExamples
from edgezo_runtime.app.answerer import Answerer
from edgezo_runtime.app.background import Background
from edgezo_runtime.app.best_keeper import BestKeeper, KeptAdapter
from edgezo_runtime.app.event_streams import EventStream, Subscription
from edgezo_runtime.app.events import Event
from edgezo_runtime.app.open_run import OpenedRun, open_run
from edgezo_runtime.app.run_data import RunData
from edgezo_runtime.app.run_events import RunEvents
from edgezo_runtime.app.step_turn import StepTurn
from edgezo_runtime.budget.placement import place
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.prompts import Prompt
from edgezo_runtime.data.questions import QuestionSet
from edgezo_runtime.data.reading import LongRows, TrainOn
from edgezo_runtime.data.row_reader import Fields, RowReader
from edgezo_runtime.data.sources import Given, Source
from edgezo_runtime.devices.choice import Wanted
from edgezo_runtime.errors import InterruptedRunError
from edgezo_runtime.evaluation.classify import Prediction
from edgezo_runtime.evaluation.evaluate import Evaluation
from edgezo_runtime.evaluation.objectives import Reward, RewardFunction
from edgezo_runtime.generation.generator import GenerationConfig
from edgezo_runtime.governors import Governor
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.system.sizes import parse_size
from edgezo_runtime.training.loop import TrainingLoop
from edgezo_runtime.training.measured_rates import Tell
from edgezo_runtime.training.step_report import EndedBy, StepReport, TunerStatus

Float32 = npt.NDArray[np.float32]

_LOG = logging.getLogger(__name__)


class Tuner:
    """Tunes the trainables of a bundle on a set of examples, and answers between steps.

        with Tuner.open(bundle, rows, template="{text} is about", labels=[" a", " b"]) as tuner:
            list(tuner)

    Each step is in the journal before it is applied. A run that was interrupted anywhere therefore
    resumes to the same bits: from the last snapshot, then from the steps in the journal.

    One thread steps; other threads may call all other methods. Answers use the blocks that are
    loaded for tuning, and their passes take turns with those of the steps. Other threads see the
    state between two steps, never in the middle of a step.

    Attributes:
        run: parts and progress of the run.
        loop: takes the steps.
        run_events: emits the events.
        plan: memory plan; None without a budget.
        keeper: records evaluations on the rows for validation, and keeps the best adapter.
    """

    def __init__(self, opened: OpenedRun) -> None:
        """Make a tuner that is not started, and does not touch the run folder; `open` starts it."""
        self.run = opened.run
        self.plan = opened.plan
        self.run_events = RunEvents(self.run)
        self.keeper = BestKeeper(self.run, opened.sets.get("valid"), opened.questions.get("valid"))
        self._answerer = Answerer(self.run, self.run_events, opened.reader, self.keeper)
        self.loop = TrainingLoop(self.run, self.run_events)
        self._steps = StepTurn(self.run.engine)
        self._added = AddedExamples(
            self.run, self.run_events, self._answerer, opened.longest, opened.plan
        )
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
        train_on: TrainOn | None = None,
        long: LongRows | None = None,
        budget: str | int | None = None,
        governors: str | Sequence[str | Governor] = (),
        reward: RewardFunction | Reward | None = None,
        resume: bool = True,
        threads: int | None = None,
        device: Wanted = "cpu",
        device_budget: str | int | None = None,
        adapter: Adapter | str | Path | None = None,
        valid: Source | None = None,
    ) -> Tuner:
        """Start a run, or resume the run in the folder.

        A new run first measures the learning rates and the perturbation scale that `config` leaves
        to "auto"; that takes some seconds.

        Args:
            bundle: the model.
            examples: training data: rows as dicts; a file, a folder, or a list of `Path`, as
                `docs/data.md` says; or tokenized examples or questions. One row at least.
            config: how to tune.
            run: folder of the run; made if it does not exist.
            template: prompt with a row's fields in braces. This and the next four: None or ()
                takes that of the run in the folder, else that of the initial adapter, else the
                default: none, as rows with messages need none. "none" takes none in any case.
            labels: label words in class order, leading spaces included.
            max_seq: longest row in tokens, also of added ones; by default 512, or the model's most.
            train_on: turns that are learned: "all", the default, or "last".
            long: longer rows: "truncate", the default, or "drop" them.
            budget: limit of the resident memory of the process: "2GB", "80%", "auto", or bytes,
                checked at every block. A pass that needs more is run in smaller chunks; `step`
                raises BudgetStopError if that does not help. The smallest of all tuners holds.
            governors: say when steps may be taken: names ("battery,thermal") or functions.
            reward: scores a generated text, given its row; the objective is then the mean reward.
            resume: the run that the folder holds, if any, of the same bundle, data and config;
                False refuses a folder that holds a run.
            threads: compute threads of the process, set by its first tuner; None takes the cores.
            device: what computes: "cpu", "webgpu", "cuda", "gpu" (either), or "auto", the fastest.
            device_budget: limit of what lies on a GPU; "80%" is a share of its memory.
            adapter: initial adapter, its file or its run folder, in place of the bundle's initial
                trainables. The run stores a copy, and resumes without the original.
            valid: rows for validation, for `evaluate` and `kept_adapter`. "auto" holds a tenth of
                `examples` out, 20 to 200 of 60 or more; added rows are all tuned on. A run that is
                resumed keeps what it held out, whatever is given. None takes no such rows.
        Raises:
            DoesNotFitError: the budget is too small for any plan, or memory was refused.
            UsageError: an argument is invalid, or does not go with the run in the folder.
            DataError: a row is wrong.
            RunFileError: the run's files are damaged or belong to other inputs.
            BundleError: the bundle is damaged.
        """
        config = config or TuneConfig()
        if reward is not None:
            reward = reward if isinstance(reward, Reward) else Reward.of(reward)
            config = dataclasses.replace(config, objective="reward")
        others: dict[str, Source] = {} if valid is None else {"valid": valid}
        own = Bundle.open(bundle) if isinstance(bundle, str | Path) else bundle
        opened = open_run(
            own,
            RunData(examples, others, template, labels, max_seq, train_on, long),
            config,
            run if isinstance(run, RunFolder) else RunFolder(Path(run)),
            budget_bytes=None if budget is None else parse_size(budget),
            threads=threads,
            placement=place(own.manifest, device, device_budget),
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

    def start(self, *, resume: bool = True, tell: Tell = lambda part, done, most: None) -> None:
        """Begin the run in the folder, or resume the run that the folder holds; `open` calls this.

        Args:
            resume: False refuses a folder that holds a run.
            tell: given the name of a measurement, its passes so far, and their number at most.
        """
        self.run.engine.require_here()
        with self._steps:
            self.loop.start(resume=resume, tell=tell)
            self.keeper.open()

    def close(self) -> None:
        """Make the journal durable and release the folder; no step can follow.

        A step of another thread is interrupted first. In a fork of the process this does nothing:
        the run belongs to the other process.

        Raises:
            RunFileError: the last steps cannot be written.
            UsageError: a step waits for the caller, such as a reward.
        """
        if self.run.engine.forked:
            return
        self._steps.require_outside("close")
        self.run.closing = True
        self.stop()
        try:
            with self._steps, self.run.lock:
                self.run.close()
        finally:  # nothing more comes for threads that wait, even if a disk is full
            self._added.wake()
            for background in self._backgrounds:  # emits the last event
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
        """Take the next step: evaluate, journal, update. Wait first while the run is paused.

        Raises:
            InterruptedRunError: `stop` was called; the trainables are as before the step.
            DivergedError: a loss is not finite, or the run rolled back too often.
            RunFileError: the step cannot be written; the tuner is closed, and the run resumes from
                the last step on the disk.
            BudgetStopError: memory is short. `step_number` says whether the step was taken; if the
                tuner is closed, the run resumes from the last step in the journal.
            UsageError: the tuner is closed, or a step waits for the caller.
        """
        self._steps.require_outside("step")
        with self._steps:
            self.run_events.begun = True
            with self._steps.stepping(), self.run_events.telling_failure():
                report = self.loop.step()
            self.run_events.tell_step(report)
            return report

    def run_in_background(self, *, keep_going: bool = False) -> Background:
        """Take the steps in a thread; `close` and `stop` end it.

        Args:
            keep_going: when the run is over, wait for `add` and step again.
        """
        self.run.engine.require_here()
        background = Background(self, keep_going=keep_going)
        known = [other for other in self._backgrounds if other.running]
        self._backgrounds = (*known, background)
        return background

    # --- progress ---

    @property
    def status(self) -> TunerStatus:
        """The status of the run; never waits."""
        return self.run.status(begun=self.run_events.begun)

    @property
    def step_number(self) -> int:
        """Number of steps that were taken."""
        return self.run.step_number

    @property
    def done(self) -> bool:
        """Is no step left?"""
        return self.run.done

    @property
    def ended_by(self) -> EndedBy | None:
        """Why no step is left: "steps", "time", or "stop" if `stop` was called; None while one is.

        "steps" are those of the configuration, or of its passes over the data. A run that ended by
        time may have taken fewer steps than planned: `status` has both numbers.
        """
        return self.run.ended_by

    @property
    def reader(self) -> RowReader | None:
        """Reads rows like those of the run; None if there are only tokens."""
        return self._answerer.reader

    @property
    def closed(self) -> bool:
        """Was the tuner not started, or closed?"""
        return self.run.closed

    @property
    def examples(self) -> ExampleSet:
        """The training data, including examples that were added."""
        return self.run.examples

    # --- pausing and ending ---

    def stop(self) -> None:
        """End the steps of this tuner; any thread and any signal handler may call this.

        A step that is being taken is interrupted at the next block. `open` resumes the run.
        """
        self.run.engine.require_here()
        self.run.gate.stop()

    def cancel(self) -> None:
        """Stop, and return when no step is being taken and the state is on the disk.

        The tuner still answers; `open` resumes the run.

        Raises:
            RunFileError: the state cannot be written; the journal is on the disk.
        """
        self._steps.require_outside("cancel")
        self.stop()
        with self._steps:
            if not self.closed:
                self.snapshot()

    def pause(self, reason: str = "paused", *, wait: bool = False) -> None:
        """Hold further steps until `resume` or `stop`.

        A step that is being taken is interrupted at the next block, and repeated later, to the same
        bits.

        Args:
            reason: the reason that `status` and the events give.
            wait: return when no step is being taken.
        Raises:
            UsageError: `wait`, and a step waits for the caller.
        """
        self.run.engine.require_here()
        if wait:
            self._steps.require_outside("pause")
        self.run.gate.hold(self, reason)
        if wait:
            self.run.gate.wait_until_idle()

    def resume(self) -> None:
        """Take steps again after `pause`."""
        self.run.engine.require_here()
        self.run.gate.release(self)

    @contextlib.contextmanager
    def paused(self, reason: str = "the app needs the device") -> Iterator[None]:
        """Hold steps during a `with` block, in addition to other holds.

        Answers in the block do not wait for a pass of a step. An interrupted step is repeated from
        its beginning, so the run does not advance if such blocks follow each other faster than a
        step takes.
        """
        self._steps.require_outside("paused")
        with self.run.gate.holding(reason):
            yield

    # --- adding examples ---

    def add(self, rows: Source) -> int:
        """Add examples; the next step uses them. They are on the disk when this returns.

        The run stores them: do not pass them to `open` again.

        Args:
            rows: as for `open`.
        Returns:
            The number of examples that the run has now.
        Raises:
            DataError: a row is wrong, or does not fit those of the run.
            RunFileError: the examples cannot be written; none was added.
            UsageError: the tuner is closed, or was not opened with rows; or the objective scores
                generated texts, which needs more of a row than the run stores.
        """
        self.run.engine.require_here()
        return self._added.add(rows)

    def wait_for_examples(self, timeout_s: float | None = None) -> bool:
        """Wait until a step is left; False if the run was stopped or closed, or time is up."""
        self.run.engine.require_here()
        return self._added.wait_for_step(timeout_s)

    # --- the state ---

    def adapter(self) -> dict[str, Float32]:
        """Copies of the trainables; those that train as their running average, if there is one."""
        self.run.engine.require_here()
        return self._answerer.adapter()

    def kept_adapter(self) -> KeptAdapter:
        """The adapter to hand out, with its step: the best one that `evaluate` was called for.

        Without rows for validation, or with `TuneConfig(keep="last")`, it is the last one.
        """
        self.run.engine.require_here()
        return self.keeper.hand_out()

    def snapshot(self) -> None:
        """Write the state, so that a resume has less to replay."""
        run = self.run
        run.engine.require_here()
        with run.lock:
            run.log.snapshot()
            self.run_events.on_snapshot()

    def sync(self) -> None:
        """Wait until all steps are on the disk: for an app that stops stepping for a while."""
        self.run.engine.require_here()
        self.run.sync()

    # --- answers ---

    def evaluate(self, examples: Source | None = None, batch_size: int = 32) -> Evaluation:
        """Loss (and accuracy) of the adapter.

        Args:
            examples: as for `open`; in a folder, the rows for validation are used. None takes the
                rows for validation of the run, and counts for `kept_adapter`.
            batch_size: examples per pass; the result does not depend on it.
        Raises:
            UsageError: the tuner was opened with tokenized examples, or without `valid`.
            DataError: a row is wrong.
        """
        self.run.engine.require_here()
        return self._answerer.evaluate(examples, batch_size)

    def classify(self, row: str | Fields) -> Prediction:
        """The class of a row, by the current adapter.

        Args:
            row: its fields, without a label; or a text, if the template has one field.
        """
        return self.classify_all([row])[0]

    def classify_all(self, rows: Iterable[str | Fields], batch_size: int = 32) -> list[Prediction]:
        """The class of every row; arguments as for `classify`."""
        self.run.engine.require_here()
        return self._answerer.classify(rows, batch_size)

    def score(self, questions: QuestionSet | str | Path | Iterable[Fields]) -> float:
        """Mean score of the adapter's answers, by the objective of the run.

        Args:
            questions: rows like those of the run, or a file of such rows.
        """
        self.run.engine.require_here()
        return self._answerer.score(questions)

    def generate(self, prompt: Prompt, settings: GenerationConfig | None = None) -> str:
        """Generate a text with the current adapter; arguments and errors as for `stream`."""
        return "".join(self.stream(prompt, settings))

    def stream(self, prompt: Prompt, settings: GenerationConfig | None = None) -> Iterator[str]:
        """Generate a text, and yield each delta as soon as it is generated.

        Every token takes its turn with the passes of steps; inside `paused` it does not wait. The
        whole text is generated with the adapter that was current at its beginning.

        Args:
            prompt: a text; a row, for the template; or messages, for the bundle's chat template.
            settings: of the generation; None generates 64 tokens at most, by greedy choice.
        Raises:
            UsageError: the bundle cannot generate, or the prompt is empty or too long.
            DataError: a row or a message is wrong.
            DoesNotFitError: keys and values of the text need more memory than the budget has left.
            BudgetStopError: memory is short.
        """
        self.run.engine.require_here()
        return self._answerer.stream(prompt, settings or GenerationConfig())

    # --- events ---

    def events(self) -> EventStream:
        """A stream of the events from now on; `close` ends it."""
        self.run.engine.require_here()
        return self.run_events.hub.stream()

    def subscribe(self, callback: Callable[[Event], object]) -> Subscription:
        """Call a function with every event from now on, in a thread of edgezo.

        Exceptions of the function are logged; the run continues.
        """
        self.run.engine.require_here()
        return self.run_events.hub.subscribe(callback)

    def listen(self, callback: Callable[[Event], object]) -> None:
        """Call a function with every event from now on, in the thread that emits the event.

        That thread waits for it, between two steps. An exception ends what the thread was doing.
        """
        self.run.engine.require_here()
        self.run_events.hub.listen(callback)
