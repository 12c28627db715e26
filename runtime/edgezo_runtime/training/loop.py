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
        descent: what a step is.
        log: what is kept of it.
        gate: where steps wait and end.
        between: held while the state changes.

    Attributes:
        loss: mean loss of the last step, nats; not a number before there is one.
    """

    def __init__(
        self,
        engine: Engine,
        descent: StepEvaluator,
        log: RunLog,
        gate: Gate,
        between: threading.RLock,
    ) -> None:
        self._engine = engine
        self._descent = descent
        self._log = log
        self._gate = gate
        self._between = between
        self.loss = math.nan

    @property
    def fraction_done(self) -> float:
        """Share of the run that is over, with the examples that the last step had."""
        state, descent = self._descent.state, self._descent
        return fraction_done(descent.settled, state.step, state.elapsed_s, descent.rates.seconds)

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
                rates = self._in_pieces(self._descent.measure)
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
        if self._descent.state.hopeless:
            raise DivergedError(self._descent.state.hopeless)

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
        descent, state = self._descent, self._descent.state
        number, before = state.step, state.elapsed_s
        reason: tuple[str, ...] = ()
        self._take_examples()
        info = descent.info(number, self._learning_rate())
        try:
            found = self._in_pieces(lambda: descent.evaluate(info))
        except DivergedError as error:
            if not descent.settled.guard or isinstance(error, CacheRangeError):
                raise
            found, reason = descent.lost(info), (f"step {number}: {error}",)
        elapsed = before + time.monotonic() - started
        with self._between:
            self._commit(descent.record(info, found, elapsed), found)
            spent = time.monotonic() - started
            descent.state.elapsed_s = before + spent
            self.loss = descent.mean_loss(found)
        return self._report(info, found, spent, reason)

    def _take_examples(self) -> None:
        """Go on with what was added since the last step."""
        examples = self._log.examples_at(self._descent.state.step)
        if len(examples) > self._descent.outline.rows:
            with self._between:
                self._descent.grow(examples, self._descent.state.step)

    def _learning_rate(self) -> float:
        descent, state = self._descent, self._descent.state
        factor = rate_factor(descent.settled, state.step, self.fraction_done)
        return descent.rates.lr * state.watch.factor * factor

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
        if self._descent.state.step == record.step:
            raise BudgetStopError(f"memory is short: {reason} for the record of a step")
        self._engine.reliefs.append(f"{reason} for the update of a step: it was done again")

    def _return_to_journal(self, reason: str) -> None:
        """Stand where the journal says, after an update that may have been done by half."""
        try:
            self._log.close()
            self._engine.give_back()
            self._descent.begin()
            self._log.resume()
        except MemoryError as error:
            raise BudgetStopError(
                f"memory is short: {reason} for the update of a step; its losses are in "
                f"{self._log.folder.journal}, continue with --resume"
            ) from error

    def _report(
        self, info: StepInfo, found: StepResult, spent: float, reason: tuple[str, ...]
    ) -> StepReport:
        descent = self._descent
        return StepReport(
            step=info.step,
            loss=self.loss,
            projected_grad=found.projected_grad,
            lr=descent.shown_lr(info),
            blocks=info.blocks,
            rows=found.rows,
            tokens=descent.tokens(found),
            elapsed_s=spent,
            events=(*reason, *descent.state.events),
        )
