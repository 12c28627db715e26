"""The tuning loop for apps: steps, what is asked between them, and what is told of them."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.app.answering_run import AnsweringRun
from edgezo_runtime.app.background import Background
from edgezo_runtime.app.events import (
    DivergenceEvent,
    EndEvent,
    ExamplesEvent,
    StepEvent,
)
from edgezo_runtime.budget.memory_limits import limited_engine, refusing_to_begin
from edgezo_runtime.budget.plan import make_plan
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.questions import QuestionSet
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.sources import Given, Source, read_given, require_alike, rows_to_come
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import BudgetStopError, InterruptedRunError, UsageError
from edgezo_runtime.evaluation.objectives import Reward, RewardFunction
from edgezo_runtime.governors import Governor, make_governors
from edgezo_runtime.governors.gate import GLANCE_S, PausedError
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.system.sizes import parse_size
from edgezo_runtime.training.loop import REFUSED
from edgezo_runtime.training.probe_evaluator import Asked
from edgezo_runtime.training.start import read_start
from edgezo_runtime.training.step_report import StepReport, TunerStatus

__all__ = ["StepReport", "Tuner", "TunerStatus"]

Float32 = npt.NDArray[np.float32]

_LOG = logging.getLogger(__name__)


class Tuner(AnsweringRun):
    """Tunes the trainables of a bundle on a set of examples, and answers while it does.

        with Tuner.open(bundle, rows, template="{text} is about", labels=[" a", " b"]) as tuner:
            for report in tuner:
                ...

    Each step is in the journal before it is applied, so a run that was cut off anywhere continues
    to the same bits: the last snapshot, then the journal's losses through the same code.

    One thread steps; any others may meanwhile call everything else. What is asked of it
    (`app/answering_run.py`) runs on the same loaded blocks and takes turns with the steps, pass by
    pass. What other threads see is the state between two steps, never half of one.
    """

    def __init__(
        self,
        engine: Engine,
        examples: ExampleSet | QuestionSet,
        config: TuneConfig,
        run: RunFolder,
        *,
        start: Adapter | None = None,
        reward: Reward | None = None,
        reader: RowReader | None = None,
        governors: Sequence[Governor] = (),
    ) -> None:
        """Use `Tuner.open`; this does not touch the run folder."""
        questions = examples if isinstance(examples, QuestionSet) else None
        rows = examples.examples if isinstance(examples, QuestionSet) else examples
        asked = Asked(questions, reward)
        super().__init__(
            engine, rows, config, run, start=start, asked=asked, reader=reader, governors=governors
        )
        self._steps = threading.Lock()
        self._adding = threading.Condition()
        self._longest: int | None = None
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
        start: Adapter | str | Path | None = None,
    ) -> Tuner:
        """Start a run, or continue the one in the folder.

        Where the learning rate or the perturbation scale is left to measurement, a new run begins
        with that; it takes some seconds.

        Args:
            bundle: the model.
            examples: training data: rows as dicts, a .jsonl file or a folder of such files, or
                examples or questions that were tokenized before. At least one; `add` brings more.
            config: what to do; the defaults are meant to work.
            run: folder of the run; made if it is not there.
            template: prompt with a row's fields in braces; None for rows that speak for themselves,
                see `RowReader`.
            labels: label words in class order, leading spaces included.
            max_seq: longest row in tokens, those to come included; what is longer is cut. None
                takes 512, or what the model can.
            budget: what the resident memory of the process must stay below: "2GB", "80%", "auto",
                or bytes. What is in memory at once is planned for it, see `budget/plan.py`,
                and watched at every block; a pass that needs more is run in smaller pieces, and
                `step` raises BudgetStopError where that does not help. The smallest budget of all
                open tuners holds for the process.
            governors: when steps may be taken: names such as "battery,thermal" (see
                `edgezo_runtime.governors`) or functions.
            reward: scores texts that the model writes, with the row each is an answer to; the
                objective is then the mean reward, whatever `config` says.
            resume: continue the run that the folder holds, if it holds one; it must have had the
                same bundle, data and configuration. False refuses a folder that holds a run.
            threads: compute threads of the process; None takes one a core. The first tuner of a
                process says.
            start: adapter, its file or its run folder, to begin from in place of the bundle's
                initial trainables. A run keeps a copy, and can be continued without it.
        Raises:
            DoesNotFitError: the budget is too small, whatever is done, or memory was refused.
            BudgetStopError: memory was refused after that.
            UsageError: the folder holds a run and `resume` is off, or an argument makes no sense.
            DataError: a row is wrong.
            RunFileError: the run's files are damaged or belong to other inputs.
            BundleError: the bundle is damaged.
        """
        opened = Bundle.open(bundle) if isinstance(bundle, str | Path) else bundle
        folder = run if isinstance(run, RunFolder) else RunFolder(Path(run))
        asked, absent = make_governors(governors)
        for text in absent:
            _LOG.warning("%s", text)
        budget_bytes = None if budget is None else parse_size(budget)
        adapter = read_start(start, folder)
        config = config or TuneConfig()
        if reward is not None:
            reward = reward if isinstance(reward, Reward) else Reward.of(reward)
            config = dataclasses.replace(config, objective="reward")
        with refusing_to_begin():
            rows, reader = read_given(opened, examples, config, template, labels, max_seq)
            engine = limited_engine(opened, budget_bytes, threads)
            try:
                tuner = cls(
                    engine,
                    rows,
                    config,
                    folder,
                    start=adapter,
                    reward=reward,
                    reader=reader,
                    governors=asked,
                )
                if resume:
                    tuner.recall()
                if budget_bytes is not None:
                    tuner._plan(budget_bytes)
            except BaseException:
                engine.close()
                raise
        tuner.start(resume=resume)
        return tuner

    def _plan(self, budget_bytes: int) -> None:
        """Choose what is in memory at once, for the examples there are and those to come."""
        others: list[ExampleSet] = []
        if self._reader is not None:
            longest = self._reader.max_seq
            others.append(rows_to_come(self.engine.bundle, self.examples, longest))
        self._longest = max(int(part.lengths().max()) for part in [self.examples, *others])
        make_plan(self, budget_bytes, others=others).apply(self.engine)

    def start(self, *, resume: bool = True) -> None:
        """Begin the run in the folder, or continue the one that is there.

        Args:
            resume: False refuses a folder that holds a run.
        Raises:
            InterruptedRunError: `stop` was called before the run had begun.
            UsageError: the folder holds a run and `resume` is off, or another tuner has it; or
                this one was closed.
            RunFileError: the run's files are damaged or belong to other inputs.
            BudgetStopError: memory was refused.
        """
        with self._steps:
            self._start(resume, self._tell_pause)

    def close(self) -> None:
        """Make the journal durable and let the folder go; the tuner cannot step any more.

        A step that another thread is in is given up first. In a fork of the process nothing is
        done: the run is the other one's.

        Raises:
            RunFileError: the disk did not take the last steps.
            UsageError: a step waits for who calls this, such as a reward.
        """
        if self.engine.forked:
            return
        self._require_outside("close")
        self._closing = True
        self.stop()
        try:
            with self._steps, self._between:
                self._close()
        finally:  # whoever waits for an event or for examples waits in vain, even if a disk is full
            with self._adding:
                self._adding.notify_all()
            for background in self._backgrounds:  # it tells that the steps have ended
                background.leave()
            self._events.close()

    def __enter__(self) -> Tuner:
        """Return the tuner; leaving the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        self._events.emit(EndEvent(self.step_number, self.status.phase))

    def step(self) -> StepReport:
        """Evaluate, record, update; wait first while there is a pause.

        Raises:
            InterruptedRunError: `stop` was called; the trainables are as before the step.
            DivergedError: a loss is not finite; the trainables are as before the step. Or the run
                went back too often, which it says at every step from then on.
            RunFileError: the disk did not take the step; the tuner is closed, and a run that is
                opened again goes on from what the disk has.
            BudgetStopError: memory is short; the step was done or not, as `step_number` says, or
                the tuner is closed, and a resume goes on from the last step in the journal.
            UsageError: the tuner is closed, or a step waits for who calls this.
        """
        self._require_outside("step")
        with self._steps:
            self._began = True
            self._stepping = threading.get_ident()
            try:
                report = self._stepped()
            except MemoryError as error:  # before the update, or after it: an update ends otherwise
                reason = str(error) or REFUSED
                failure = BudgetStopError(f"memory is short: {reason} between two passes")
                self._tell_end(failure)
                raise failure from error
            except Exception as error:  # of a governor as well
                self._tell_end(error)
                raise
            finally:
                self._stepping = None
            self._events.emit(StepEvent(self.step_number, report))
            for text in report.events:
                self._events.emit(DivergenceEvent(self.step_number, text))
            self._tell_reliefs()
            return report

    def _stepped(self) -> StepReport:
        given_up: str | None = None
        while True:
            if self.closed:
                raise UsageError("the tuner is closed")
            self._stepper.require_hope()
            self._gate.wait(self._tell_pause, given_up)
            try:
                with self._gate.working():
                    report = self._stepper.step()
                    with self._between:
                        self._stand()
                    self._stepper.require_hope()
                    if self.step_number % self.config.save_every == 0:
                        self._snapshot_if_possible()
                    return report
            except PausedError as error:
                given_up = str(error)

    def _snapshot_if_possible(self) -> None:
        """Write a snapshot; without one, a resume has more to replay, and nothing is lost."""
        try:
            self.snapshot()
            return
        except MemoryError as error:
            reason = str(error) or REFUSED
        self.engine.give_back()
        self.engine.reliefs.append(f"{reason}: no snapshot after {self.step_number} steps")

    def run_in_background(self, *, keep_going: bool = False) -> Background:
        """Have a thread take the steps; `close` and `stop` end it.

        Args:
            keep_going: when the run is over, wait for `add` and go on.
        Returns:
            The thread: `join` waits for it, and raises what ended it.
        """
        background = Background(self, keep_going=keep_going)
        known = [other for other in self._backgrounds if other.running]
        self._backgrounds = (*known, background)
        return background

    # --- pausing and ending ---

    def stop(self) -> None:
        """End the steps of this sitting. A step that is running is given up where its pass meets
        the next block; may be called from any thread, and from a signal handler. The run can be
        opened again and goes on."""
        self._gate.stop()

    def cancel(self) -> None:
        """`stop`, and return when no step is being taken and the state is on the disk.

        The tuner still answers; `open` goes on with the run.

        Raises:
            RunFileError: the disk did not take the state; it has the journal.
            UsageError: a step waits for who calls this, such as a reward or a governor.
        """
        self._require_outside("cancel")
        self.stop()
        with self._steps:
            if not self.closed:
                self.snapshot()

    def pause(self, reason: str = "paused", *, wait: bool = False) -> None:
        """Keep further steps waiting until `resume` or `stop`.

        A step that is running is given up where its pass meets the next block, and done again
        later: the losses, and so the bits, are the same.

        Args:
            reason: what `status` and the events say.
            wait: return when no step is being taken.
        Raises:
            UsageError: `wait`, and a step waits for who calls this.
        """
        if wait:
            self._require_outside("pause")
        self._gate.hold(self, reason)
        if wait:
            self._gate.wait_until_idle()

    def resume(self) -> None:
        """Let the steps go on after `pause`."""
        self._gate.release(self)

    @contextlib.contextmanager
    def paused(self, reason: str = "the app needs the device") -> Iterator[None]:
        """Keep steps waiting meanwhile, besides whatever else does; no step is being taken inside.

        What an app asks for in such a block it gets without waiting for a step's pass. A step that
        is given up is done again from its beginning: blocks that come closer to each other than a
        step is long keep the run from getting on.

        Raises:
            UsageError: a step waits for who calls this, such as a reward or a governor.
        """
        self._require_outside("paused")
        key = object()
        self._gate.hold(key, reason)
        try:
            self._gate.wait_until_idle()
            yield
        finally:
            self._gate.release(key)

    def _require_outside(self, what: str) -> None:
        """Refuse what would wait for this very thread."""
        self.engine.require_here()
        if self._stepping == threading.get_ident() or self.engine.inside:
            raise UsageError(
                f"'{what}' was called by a reward or a governor, which a step waits for; have "
                f"another thread do it, or call 'stop' or 'pause' without wait"
            )

    # --- more to learn from ---

    def add(self, rows: Source) -> int:
        """Add examples; steps are taken on them from the next one on. Any thread may.

        They are on the disk when this returns, and belong to the run: `open` finds them again,
        and is given the same examples as before.

        Args:
            rows: as for `open`.
        Returns:
            How many examples the run has now.
        Raises:
            DataError: a row is wrong, or does not go with those there are.
            RunFileError: the disk did not take them; nothing was added.
            UsageError: the tuner is closed, or was not opened with rows; or what it learns from are
                scores of texts, which ask for more of a row than the run keeps.
        """
        self.engine.require_here()
        if self.probe_evaluator.objective.has_answers:
            raise UsageError(
                f"objective {self.probe_evaluator.objective.name}: a run that is scored by its "
                f"texts takes no further examples; begin another run on all rows, with "
                f"start={str(self.run.path)!r}"
            )
        more = self._read(rows, "train")
        require_alike(more, self.examples, self._longest, self.scope)
        with self._adding:
            with self._between:
                count = self._log.add(more)
                self._stand()
            self._adding.notify_all()
        self._events.emit(ExamplesEvent(self.step_number, len(more), count))
        return count

    def wait_for_examples(self, timeout_s: float | None = None) -> bool:
        """Wait until there is something left to do; False if the run was stopped or time is up."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._adding:
            while not self._gate.stopped and not self.closed:
                if not self.done:
                    return True
                left = GLANCE_S if until is None else min(GLANCE_S, until - time.monotonic())
                if left <= 0:
                    return False
                self._adding.wait(left)  # a signal's `stop` takes no lock
        return False
