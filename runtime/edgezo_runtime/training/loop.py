"""The training loop: next examples, evaluation, journal, update, snapshot, report."""

from __future__ import annotations

import dataclasses
import time
from typing import Protocol

from edgezo_runtime.errors import CacheRangeError, DivergedError, UsageError
from edgezo_runtime.governors.gate import PausedError
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.methods.estimators import StepInfo, Term
from edgezo_runtime.methods.lr_schedules import rate_factor
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.methods.run_length import fraction_done
from edgezo_runtime.system.memory_errors import budget_stop, refusal_reason
from edgezo_runtime.training.attempts import attempts
from edgezo_runtime.training.measured_rates import Tell
from edgezo_runtime.training.run import Run
from edgezo_runtime.training.step_evaluator import StepResult
from edgezo_runtime.training.step_report import StepReport


class LoopListener(Protocol):
    """Receives the events of a loop that its step reports do not contain."""

    def on_pause(self, reason: str | None) -> None:
        """Steps wait for this reason; None if steps are taken again."""

    def on_snapshot(self) -> None:
        """A snapshot is on the disk."""


class TrainingLoop:
    """Takes the steps of a run; one thread at a time.

    Args:
        run: the run.
        listener: receives pauses and snapshots.
    """

    def __init__(self, run: Run, listener: LoopListener) -> None:
        self._run = run
        self._listener = listener

    def step(self) -> StepReport:
        """Take the next step; wait first while the run is paused.

        A step that a pause interrupts is repeated from its beginning, to the same bits.

        Raises:
            InterruptedRunError: the run was stopped; the trainables are as before the step.
            DivergedError: a loss is not finite, and the trainables are as before the step; or the
                run rolled back too often.
            RunFileError: the record cannot be written; the run is closed.
            BudgetStopError: memory is short.
            UsageError: the run is closed.
        """
        run, evaluator, trajectory = self._run, self._run.evaluator, self._run.trajectory
        paused: str | None = None
        while True:
            self._require_open()
            run.gate.wait(self._listener.on_pause, paused)
            try:
                with run.gate.working():
                    started, before = time.monotonic(), run.state.elapsed_s

                    self._take_new_examples()
                    info = trajectory.info(self._learning_rate())
                    events: tuple[str, ...] = ()
                    try:
                        result = evaluator.evaluate(info, run.gate.check)
                    except DivergedError as error:
                        result, events = self._without_losses(info, error)

                    record = trajectory.record(
                        info, result.losses, result.gradient, before + time.monotonic() - started
                    )
                    with run.lock:
                        self._journal_and_apply(record, result.terms)
                        elapsed_s = time.monotonic() - started
                        run.state.elapsed_s = before + elapsed_s
                        run.loss = result.mean_loss
                        run.note_progress()
                    self._require_open()

                    if run.step_number % run.config.save_every == 0:
                        self._snapshot()
                    return self._report(info, result, elapsed_s, events)
            except PausedError as error:
                paused = str(error)

    # --- before the steps ---

    def start(self, *, resume: bool, tell: Tell = lambda part, done, most: None) -> None:
        """Begin the run in its folder, or resume the run that the folder holds.

        Args:
            resume: False refuses a folder that holds a run.
            tell: as for `measure_rates`.
        Raises:
            BudgetStopError: memory was refused.
            EdgezoError: as `Run.start`.
        """
        try:
            self._run.start(lambda: self._measure(tell), resume=resume)
        except MemoryError as error:
            raise budget_stop(
                error,
                f" before the first step; {self._run.folder.path} is unchanged, or can be resumed",
            ) from error

    def _measure(self, tell: Tell) -> Rates:
        """Measure the rates that the configuration leaves to measurement, and the time it takes.

        Args:
            tell: as for `measure_rates`.
        Raises:
            InterruptedRunError: the run was stopped.
            BudgetStopError: memory is short.
            DivergedError: a loss is not finite.
        """
        run, started = self._run, time.monotonic()
        paused: str | None = None
        while True:
            run.gate.wait(self._listener.on_pause, paused)
            try:
                for attempt in attempts(run.engine, run.gate.check):
                    with attempt:
                        rates = run.evaluator.measure(tell)
                        break
            except PausedError as error:
                paused = str(error)
                continue
            rates = dataclasses.replace(rates, seconds=round(time.monotonic() - started, 3))
            rates.check()
            return rates

    # --- parts of a step ---

    def _require_open(self) -> None:
        """Refuse to take another step.

        Raises:
            DivergedError: the run rolled back too often.
            UsageError: the run is closed.
        """
        if self._run.closed:
            raise UsageError("the tuner is closed")
        if self._run.state.hopeless:
            raise DivergedError(self._run.state.hopeless)

    def _take_new_examples(self) -> None:
        """Use the examples that were added since the last step."""
        run = self._run
        examples = run.log.examples_at(run.step_number)
        if len(examples) > run.trajectory.layout.rows:
            with run.lock:
                run.evaluator.grow(examples, run.step_number)

    def _learning_rate(self) -> float:
        """The learning rate of the next step: by schedule, and halved by every rollback."""
        run, config = self._run, self._run.trajectory.settled
        done = fraction_done(config, run.step_number, run.state.elapsed_s, run.rates.seconds)
        factor = rate_factor(config, run.step_number, done)
        return run.rates.lr * run.state.monitor.factor * factor

    def _without_losses(
        self, info: StepInfo, error: DivergedError
    ) -> tuple[StepResult, tuple[str, ...]]:
        """The result of a step with a loss that is not finite; it makes the state roll back.

        Raises:
            DivergedError: the run does not roll back, or a rollback would not help.
        """
        if not self._run.trajectory.settled.rollback or isinstance(error, CacheRangeError):
            raise error
        return self._run.evaluator.without_losses(info), (f"step {info.step}: {error}",)

    def _journal_and_apply(self, record: StepRecord, terms: list[Term]) -> None:
        """Append a step to the journal, then apply it to the state.

        If memory is refused in between, restore the state from the journal.

        Raises:
            BudgetStopError: memory was refused before the step was in the journal, or the state
                cannot be restored.
        """
        run = self._run
        try:
            with run.log.recording(record):
                run.trajectory.apply(record, terms)
            return
        except MemoryError as error:
            reason = refusal_reason(error)
        self._restore(reason)
        if run.step_number == record.step:
            raise budget_stop(reason, " for the record of a step")
        run.engine.reliefs.append(f"{reason} for the update of a step: the update was repeated")

    def _restore(self, reason: str) -> None:
        """Replay the journal, after an update that may be incomplete."""
        run = self._run
        try:
            run.log.close()
            run.engine.give_back()
            run.trajectory.begin()
            run.log.resume()
        except MemoryError as error:
            raise budget_stop(
                reason,
                f" for the update of a step; the step is in {run.folder.journal}, resume the run "
                f"from there",
            ) from error

    def _snapshot(self) -> None:
        """Write a snapshot. If memory is refused, a resume has more to replay; nothing is lost."""
        run = self._run
        try:
            with run.lock:
                run.log.snapshot()
                self._listener.on_snapshot()
            return
        except MemoryError as error:
            reason = refusal_reason(error)
        run.engine.give_back()
        run.engine.reliefs.append(f"{reason}: no snapshot after {run.step_number} steps")

    def _report(
        self, info: StepInfo, result: StepResult, elapsed_s: float, events: tuple[str, ...]
    ) -> StepReport:
        run, rates = self._run, self._run.rates
        return StepReport(
            step=info.step,
            loss=result.mean_loss,
            projected_grad=result.projected_grad,
            lr=info.lr if info.blocks else info.lr * rates.first_order_lr / rates.lr,
            blocks=info.blocks,
            rows=result.rows,
            tokens=run.evaluator.tokens(result),
            elapsed_s=elapsed_s,
            events=(*events, *run.state.events),
        )
