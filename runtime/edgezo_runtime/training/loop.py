"""Takes the steps of a run: evaluate, record, update; in smaller pieces where memory is refused."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import BudgetStopError, CacheRangeError, DivergedError
from edgezo_runtime.governors.gate import Gate, PausedError
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.methods.estimators import StepInfo
from edgezo_runtime.methods.lr_schedules import fraction_done, rate_factor
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.training.run_log import RunLog
from edgezo_runtime.training.step_evaluator import StepEvaluator, StepResult
from edgezo_runtime.training.step_report import StepReport

T = TypeVar("T")

REFUSED = "numpy was refused memory"


class Stepper:
    """The steps of one run; one thread at a time takes them.

    Args:
        engine: runs the bundle.
        step_evaluator: what a step is.
        log: what is kept of it.
        gate: where steps wait and end.
        between: held while the state changes.

    Attributes:
        loss: mean loss of the last step, nats; not a number before there is one.
    """

    def __init__(
        self,
        engine: Engine,
        step_evaluator: StepEvaluator,
        log: RunLog,
        gate: Gate,
        between: threading.RLock,
    ) -> None:
        self._engine = engine
        self._step_evaluator = step_evaluator
        self._log = log
        self._gate = gate
        self._between = between
        self.loss = math.nan

    @property
    def fraction_done(self) -> float:
        """Share of the run that is over, with the examples that the last step had."""
        state, step_evaluator = self._step_evaluator.state, self._step_evaluator
        return fraction_done(
            step_evaluator.settled, state.step, state.elapsed_s, step_evaluator.rates.seconds
        )

    def measure(self, tell: Callable[[str | None], None]) -> Rates:
        """The rates of the run that are left to measurement, and the seconds that took.

        Args:
            tell: see `Gate.wait`.
        Raises:
            InterruptedRunError: it was stopped.
            BudgetStopError: memory is short.
            DivergedError: a loss is not finite.
        """
        started = time.monotonic()
        given_up: str | None = None
        while True:
            self._gate.wait(tell, given_up)
            try:
                rates = self._in_pieces(self._step_evaluator.measure)
                break
            except PausedError as error:
                given_up = str(error)
        spent = round(time.monotonic() - started, 3)
        rates = dataclasses.replace(rates, seconds=spent)
        rates.check()
        return rates

    def require_hope(self) -> None:
        """Refuse a step where none may follow.

        Raises:
            DivergedError: the run went back too often.
        """
        if self._step_evaluator.state.hopeless:
            raise DivergedError(self._step_evaluator.state.hopeless)

    def step(self) -> StepReport:
        """Take the step that is next, with all examples there are.

        Raises:
            PausedError: it is to be done again later.
            InterruptedRunError: it was stopped; the trainables are as before the step.
            DivergedError: a loss is not finite; the trainables are as before the step.
            BudgetStopError: memory is short.
            RunFileError: the disk did not take the record.
        """
        started = time.monotonic()
        step_evaluator, state = self._step_evaluator, self._step_evaluator.state
        number, before = state.step, state.elapsed_s
        reason: tuple[str, ...] = ()
        self._take_examples()
        info = step_evaluator.info(number, self._learning_rate())
        try:
            found = self._in_pieces(lambda: step_evaluator.evaluate(info))
        except DivergedError as error:
            if not step_evaluator.settled.rollback or isinstance(error, CacheRangeError):
                raise
            found, reason = step_evaluator.lost(info), (f"step {number}: {error}",)
        elapsed = before + time.monotonic() - started
        with self._between:
            self._commit(step_evaluator.record(info, found, elapsed), found)
            spent = time.monotonic() - started
            step_evaluator.state.elapsed_s = before + spent
            self.loss = step_evaluator.mean_loss(found)
        return self._report(info, found, spent, reason)

    def _take_examples(self) -> None:
        """Go on with what was added since the last step."""
        examples = self._log.examples_at(self._step_evaluator.state.step)
        if len(examples) > self._step_evaluator.layout.rows:
            with self._between:
                self._step_evaluator.grow(examples, self._step_evaluator.state.step)

    def _learning_rate(self) -> float:
        step_evaluator, state = self._step_evaluator, self._step_evaluator.state
        factor = rate_factor(step_evaluator.settled, state.step, self.fraction_done)
        return step_evaluator.rates.lr * state.monitor.factor * factor

    def _in_pieces(self, work: Callable[[], T]) -> T:
        """Do something that `stop` and `pause` end, in smaller pieces where memory is refused."""
        while True:
            try:
                with self._engine.interruptible(self._gate.check):
                    return work()
            except MemoryError as error:
                reason = str(error) or REFUSED
            self._engine.shrink(reason)

    def _commit(self, record: StepRecord, found: StepResult) -> None:
        """Journal a step, then apply it.

        Raises:
            BudgetStopError: memory was refused before the step was in the journal, or its state
                cannot be had again.
        """
        try:
            self._log.commit(record, found.terms)
            return
        except MemoryError as error:
            reason = str(error) or REFUSED
        self._return_to_journal(reason)
        if self._step_evaluator.state.step == record.step:
            raise BudgetStopError(f"memory is short: {reason} for the record of a step")
        self._engine.reliefs.append(f"{reason} for the update of a step: it was done again")

    def _return_to_journal(self, reason: str) -> None:
        """Stand where the journal says, after an update that may have been done by half."""
        try:
            self._log.close()
            self._engine.give_back()
            self._step_evaluator.begin()
            self._log.resume()
        except MemoryError as error:
            raise BudgetStopError(
                f"memory is short: {reason} for the update of a step; its losses are in "
                f"{self._log.folder.journal}, continue with --resume"
            ) from error

    def _report(
        self, info: StepInfo, found: StepResult, spent: float, reason: tuple[str, ...]
    ) -> StepReport:
        step_evaluator = self._step_evaluator
        return StepReport(
            step=info.step,
            loss=self.loss,
            projected_grad=found.projected_grad,
            lr=step_evaluator.shown_lr(info),
            blocks=info.blocks,
            rows=found.rows,
            tokens=step_evaluator.tokens(found),
            elapsed_s=spent,
            events=(*reason, *step_evaluator.state.events),
        )
