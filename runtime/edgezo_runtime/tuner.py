"""The tuning loop: schedule, estimator, engine, rule, journal."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.descent import Descent, Evaluated
from edgezo_runtime.engine import Engine
from edgezo_runtime.errors import (
    BudgetStopError,
    CacheRangeError,
    DivergedError,
    InterruptedRunError,
    RunFileError,
    UsageError,
)
from edgezo_runtime.estimators import StepInfo, Term
from edgezo_runtime.evaluate import Evaluation, evaluate
from edgezo_runtime.example_set import DataWarning, ExampleSet
from edgezo_runtime.fences import fenced_engine, refusing_to_begin
from edgezo_runtime.journal import Journal, JournalContents, SyncPolicy, read_journal
from edgezo_runtime.lr_schedules import LR_SCHEDULES
from edgezo_runtime.plan import make_plan
from edgezo_runtime.prober import Prober
from edgezo_runtime.rates import Rates
from edgezo_runtime.run_folder import RunFolder
from edgezo_runtime.run_header import RunHeader, differences
from edgezo_runtime.scope import Scope
from edgezo_runtime.snapshot import load_snapshot, save_snapshot
from edgezo_runtime.step_record import StepRecord
from edgezo_runtime.training_state import TrainingState

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did.

    Attributes:
        step: its number, from 0.
        loss: mean loss over the probes of the step, nats; not a number where one was not finite.
        projected_grad: root mean square of the projected gradients.
        lr: learning rate used.
        blocks: active blocks.
        rows: rows of the model evaluated.
        tokens: tokens evaluated in them, padding and what was kept not counted.
        elapsed_s: wall-clock seconds of the step.
        events: what the guard noticed, in words.
    """

    step: int
    loss: float
    projected_grad: float
    lr: float
    blocks: tuple[int, ...]
    rows: int
    tokens: int
    elapsed_s: float
    events: tuple[str, ...] = ()


Phase = Literal["ready", "running", "paused", "stopped", "done", "closed"]


@dataclass(frozen=True, slots=True)
class TunerStatus:
    """Where a run stands.

    Attributes:
        step: steps done.
        loss: mean loss of the last one, nats; not a number before there is one.
        elapsed_s: seconds that they took.
        fraction_done: share of the run that is over.
        phase: "ready" before the first step of this sitting, "running", "paused", "stopped",
            "done", or "closed".
    """

    step: int
    loss: float
    elapsed_s: float
    fraction_done: float
    phase: Phase


class Tuner:
    """Tunes the trainables of a bundle on a set of examples.

    with Tuner.open(bundle, examples, config, run) as tuner:
        for report in tuner:
            ...

    Each step is in the journal before it is applied, so a run that was cut off anywhere continues
    to the same bits: the last snapshot, then the journal's losses through the same code.

    One thread steps; others may meanwhile read `status` and `adapter`, call `snapshot`, `pause`,
    `resume`, `stop` and `evaluate`, which takes turns with the steps, a batch at a time. What they
    read is the state between two steps, never half of one.
    """

    def __init__(
        self,
        engine: Engine,
        examples: ExampleSet,
        config: TuneConfig,
        run: RunFolder,
    ) -> None:
        """Use `Tuner.open`; this does not touch the run folder."""
        config.check()
        self.engine = engine
        self.examples = examples
        self.config = config
        self.run = run
        self.descent = Descent(engine, examples, config)
        self._journal: Journal | None = None
        self._stopped = False
        self._closing = False
        self._resumed = threading.Event()
        self._resumed.set()
        self._steps = threading.Lock()
        self._between = threading.RLock()
        self._loss = math.nan
        self._began = False
        self._stands = (0, math.nan, 0.0, 0.0)
        self._took = False
        self._inputs: RunHeader | None = None

    @property
    def prober(self) -> Prober:
        """Evaluates losses."""
        return self.descent.prober

    @property
    def state(self) -> TrainingState:
        """Trainables, and what rules and samplers keep."""
        return self.descent.state

    @property
    def rates(self) -> Rates:
        """Learning rates and perturbation scale; measured when the run has started."""
        return self.descent.rates

    @property
    def settled(self) -> TuneConfig:
        """The configuration with "auto" filled in where that is no matter of measurement."""
        return self.descent.settled

    @property
    def scope(self) -> Scope:
        """Tokens the adapters act on."""
        return self.prober.scope

    @property
    def theta(self) -> dict[str, Float32]:
        """The trainables as they stand, no copies: for the thread that steps."""
        return self.state.theta

    @property
    def step_number(self) -> int:
        """Steps done."""
        return self.state.step

    @property
    def elapsed_s(self) -> float:
        """Seconds that they took."""
        return self.state.elapsed_s

    # --- life ---

    @classmethod
    def open(
        cls,
        bundle: Bundle | str | Path,
        examples: ExampleSet,
        config: TuneConfig | None = None,
        run: RunFolder | str | Path = "run",
        *,
        resume: bool = True,
        threads: int | None = None,
        budget_bytes: int | None = None,
    ) -> Tuner:
        """Start a run, or continue the one in the folder.

        Args:
            bundle: the model.
            examples: training data.
            config: what to do; the defaults are meant to work.
            run: folder of the run; made if it is not there.
            resume: continue the run that the folder holds, if it holds one; it must have had the
                same bundle, data and configuration. False refuses a folder that holds a run.
            threads: compute threads; None takes one a core.
            budget_bytes: what the resident memory of the process must stay below. What is in
                memory at once is planned for it, see `edgezo_runtime.plan`, and watched at every
                block boundary; a pass that needs more is run in smaller pieces, and `step` raises
                BudgetStopError where that does not help.
        Raises:
            DoesNotFitError: the budget is too small, whatever is done, or memory was refused.
            BudgetStopError: memory was refused after that.
            UsageError: the folder holds a run and `resume` is off.
            RunFileError: the run's files are damaged or belong to other inputs.
            BundleError: the bundle is damaged.
        """
        opened = Bundle.open(bundle) if isinstance(bundle, str | Path) else bundle
        folder = run if isinstance(run, RunFolder) else RunFolder(Path(run))
        with refusing_to_begin():
            engine = fenced_engine(opened, budget_bytes, threads)
            tuner = cls(engine, examples, config or TuneConfig(), folder)
            if resume:
                tuner.recall()
            if budget_bytes is not None:
                make_plan(tuner, budget_bytes).apply(engine)
        tuner.start(resume=resume)
        return tuner

    def start(self, *, resume: bool = True) -> None:
        """Begin the run in the folder, or continue the one that is there.

        Where the learning rate or the perturbation scale is left to measurement, a new run begins
        with that; see `edgezo_runtime.calibrate`.

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
            self._start(resume)

    def _start(self, resume: bool) -> None:
        if self._closing:
            raise UsageError("the tuner is closed")
        self.run.take()
        self._took = True
        try:
            if self.run.has_journal():
                if not resume:
                    raise UsageError(
                        f"{self.run.path}: holds a run; continue it, or choose another folder"
                    )
                self._resume()
            else:
                self._open_cache()
                self._begin()
            if self.prober.cache is None:
                self._open_cache()
            self._stand()
        except MemoryError as error:
            self._close()
            raise BudgetStopError(
                f"memory is short: {str(error) or _REFUSED} before the first step; "
                f"{self.run.path} is as it was, or can be continued with --resume"
            ) from error
        except BaseException:
            self._close()
            raise

    def close(self) -> None:
        """Make the journal durable and let the folder go; the tuner cannot step any more.

        A step that another thread is in is given up first.
        """
        self._closing = self._stopped = True
        with self._steps, self._between:
            self._close()

    def _close(self) -> None:
        journal, self._journal = self._journal, None
        cache, self.prober.cache = self.prober.cache, None
        try:
            if journal is not None:
                journal.close()
        finally:
            if cache is not None:
                cache.close()
                self.run.cache.unlink(missing_ok=True)
            if self._took:
                self._took = False
                self.run.release()

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
                return
            yield report

    @property
    def closed(self) -> bool:
        """Is the tuner not started, or closed?"""
        return self._journal is None

    @property
    def done(self) -> bool:
        """Is there nothing left to do?"""
        return self._stopped or self.fraction_done >= 1

    @property
    def fraction_done(self) -> float:
        """Share of the run that is over, by steps or by time, whichever is further."""
        by_steps = self.step_number / self.settled.steps if self.settled.steps else 0.0
        if not self.config.max_time_s:
            return by_steps
        # from the first step on, so that its learning rate does not depend on a clock
        left = self.config.max_time_s - self.rates.seconds
        by_time = (self.elapsed_s - self.rates.seconds) / left if left > 0 else 1.0
        return max(by_steps, by_time)

    @property
    def status(self) -> TunerStatus:
        """Where the run stands; never waits."""
        step, loss, elapsed_s, fraction = self._stands  # one object, so of one step
        return TunerStatus(step, loss, elapsed_s, fraction, self._phase(fraction))

    def _phase(self, fraction: float) -> Phase:
        if self._journal is None:
            return "closed"
        if fraction >= 1:
            return "done"
        if self._stopped:
            return "stopped"
        if not self._resumed.is_set():
            return "paused"
        return "running" if self._began else "ready"

    def _stand(self) -> None:
        """Tell other threads where the run stands now."""
        self._stands = self.step_number, self._loss, self.elapsed_s, self.fraction_done

    def stop(self) -> None:
        """End iteration. A step that is running is given up where its pass meets the next block;
        may be called from any thread, and from a signal handler."""
        self._stopped = True

    def pause(self) -> None:
        """Keep further steps waiting until `resume` or `stop`.

        A step that is running is given up where its pass meets the next block, and done again
        later: the losses, and so the bits, are the same.
        """
        self._resumed.clear()

    def resume(self) -> None:
        """Let the steps go on."""
        self._resumed.set()

    def _wait_while_paused(self) -> None:
        """Return when there is no pause.

        Raises:
            InterruptedRunError: `stop` was called meanwhile.
        """
        if not self._resumed.is_set():
            self.sync()
        while not self._resumed.wait(_GLANCE_S):  # a signal's `stop` must take no lock
            if self._stopped:
                raise InterruptedRunError(_STOPPED)

    @contextlib.contextmanager
    def _ending_at_once(self) -> Iterator[None]:
        """Let `stop` and `pause` end the passes of this thread meanwhile."""

        def check() -> None:
            if self._stopped:
                raise InterruptedRunError(_STOPPED)
            if not self._resumed.is_set():
                raise _PausedError

        with self.engine.interruptible(check):
            yield

    def step(self) -> StepReport:
        """Evaluate, record, update.

        Raises:
            InterruptedRunError: `stop` was called; the trainables are as before the step.
            DivergedError: a loss is not finite; the trainables are as before the step. Or the run
                went back too often, which it says at every step from then on.
            RunFileError: the disk did not take the step; the tuner is closed, and a run that is
                opened again goes on from what the disk has.
            BudgetStopError: memory is short; the step was done or not, as `step_number` says, or
                the tuner is closed, and a resume goes on from the last step in the journal.
            UsageError: the tuner is closed.
        """
        with self._steps:
            self._began = True
            return self._stepped()

    def _stepped(self) -> StepReport:
        if self._journal is None:
            raise UsageError("the tuner is closed")
        self._require_hope()
        try:
            while True:
                self._wait_while_paused()
                try:
                    return self._step(self._journal)
                except _PausedError:
                    pass
        except MemoryError as error:  # before the update, or after it: an update ends otherwise
            reason = str(error) or _REFUSED
            raise BudgetStopError(f"memory is short: {reason} between two passes") from error

    def _step(self, journal: Journal) -> StepReport:
        started = time.monotonic()
        number = self.step_number
        before = self.elapsed_s
        descent = self.descent
        reason: tuple[str, ...] = ()
        info = descent.info(number, self._learning_rate())
        try:
            found = self._evaluated(info)
        except DivergedError as error:
            if not self.config.guard or isinstance(error, CacheRangeError):
                raise
            found, reason = descent.lost(info), (f"step {number}: {error}",)
        elapsed = before + time.monotonic() - started
        with self._between:
            self._commit(journal, descent.record(info, found, elapsed), found.terms)
            spent = time.monotonic() - started
            self.state.elapsed_s = before + spent
            self._loss = descent.mean_loss(found)
            self._stand()
        self._require_hope()
        if self.step_number % self.config.save_every == 0:
            self._snapshot_if_possible()
        return StepReport(
            step=number,
            loss=self._loss,
            projected_grad=found.projected_grad,
            lr=descent.shown_lr(info),
            blocks=info.blocks,
            rows=found.rows,
            tokens=descent.tokens(found),
            elapsed_s=spent,
            events=(*reason, *self.state.events),
        )

    def _require_hope(self) -> None:
        if self.state.hopeless:
            raise DivergedError(self.state.hopeless)

    def _evaluated(self, info: StepInfo) -> Evaluated:
        """What is found on a step's batch, in smaller pieces where memory is refused."""
        while True:
            try:
                with self._ending_at_once():
                    return self.descent.evaluate(info)
            except MemoryError as error:
                reason = str(error) or _REFUSED
            self.engine.shrink(reason)

    def _commit(self, journal: Journal, record: StepRecord, terms: list[Term]) -> None:
        """Journal a step, then apply it.

        Raises:
            BudgetStopError: memory was refused before the step was in the journal, or its state
                cannot be had again.
            RunFileError: the disk did not take it.
        """
        try:
            journal.append(record)
            self.descent.apply(record, terms)
            return
        except MemoryError as error:
            reason = str(error) or _REFUSED
        except BaseException:  # what is in the journal may not be in the state, or half of it
            self._journal = None
            journal.abandon()
            raise
        self._return_to_journal(journal, reason)
        if self.step_number == record.step:
            raise BudgetStopError(f"memory is short: {reason} for the record of a step")
        self.engine.reliefs.append(f"{reason} for the update of a step: it was done again")

    def _return_to_journal(self, journal: Journal, reason: str) -> None:
        """Stand where the journal says, after an update that may have been done by half."""
        self._journal = None
        try:
            self.engine.give_back()
            journal.close()
            self.descent.begin()
            self._resume()
        except MemoryError as error:
            raise BudgetStopError(
                f"memory is short: {reason} for the update of a step; its losses are in "
                f"{self.run.journal}, continue with --resume"
            ) from error

    def _snapshot_if_possible(self) -> None:
        """Write a snapshot; without one, a resume has more to replay, and nothing is lost."""
        try:
            self.snapshot()
            return
        except MemoryError as error:
            reason = str(error) or _REFUSED
        self.engine.give_back()
        self.engine.reliefs.append(f"{reason}: no snapshot after {self.step_number} steps")

    def _learning_rate(self) -> float:
        lr_factor = LR_SCHEDULES[self.config.lr_schedule]
        fraction = self.fraction_done
        if self.settled.steps:
            fraction += 0.5 / self.settled.steps
        return (
            self.rates.lr
            * self.state.watch.factor
            * self._pace()
            * lr_factor(min(fraction, 1.0), 0.0)
        )

    def _pace(self) -> float:
        """Share of the learning rate that a run of this length takes.

        The way a run goes is the sum of its rates, the noise it collects the sum of their squares.
        Beyond the horizon the way stays the same and more steps buy less noise.
        """
        expected = float(self.settled.steps)
        if not expected and self.fraction_done:
            expected = self.step_number / self.fraction_done
        if not self.config.horizon or not expected:
            return 1.0
        return min(1.0, self.config.horizon / expected)

    # --- state ---

    def adapter(self) -> dict[str, Float32]:
        """Copies of the tuned trainables: their running average where one is kept."""
        with self._between:
            return self.state.adapter()

    def evaluate(self, examples: ExampleSet, batch_size: int = 32) -> Evaluation:
        """Loss (and accuracy) of the adapter on a set of examples."""
        self.sync()
        return evaluate(self.engine, self.adapter(), examples, batch_size, scope=self.scope)

    def sync(self) -> None:
        """Wait until all steps are on the disk: before a time in which none is taken."""
        with self._between:
            if self._journal is not None:
                self._journal.sync()

    def snapshot(self) -> None:
        """Write trainables and rule state, so that a resume has less to replay."""
        with self._between:
            if self._journal is None:
                raise UsageError("the tuner is closed")
            self._journal.sync()
            save_snapshot(self.run.snapshot, self.state.snapshot(self._header().digest()))

    def _header(self) -> RunHeader:
        """What the run depends on, with its rates."""
        if self._inputs is None:
            self._inputs = RunHeader.of(
                self.engine.bundle, self.config, self.examples, self.scope, self.rates
            )
        return dataclasses.replace(self._inputs, rates=self.rates)

    def _open_cache(self) -> None:
        if self.config.prefix_cache:
            limit = self.cache_limit
            self.run.cache.unlink(missing_ok=True)
            self.prober.cache = self.prober.make_cache(self.run.cache, limit)

    def _begin(self) -> None:
        started = time.monotonic()
        rates = self._measured()
        spent = round(time.monotonic() - started, 3)
        rates = dataclasses.replace(rates, seconds=spent)
        rates.check()
        self._use(rates)
        policy = SyncPolicy(every_steps=None, every_s=1.0)
        self._journal = Journal.create(self.run.journal, self._header().as_json(), policy)
        self.snapshot()

    def _measured(self) -> Rates:
        """The rates of the run, in smaller pieces where memory is refused."""
        while True:
            self._wait_while_paused()
            try:
                with self._ending_at_once():
                    return self.descent.measure()
            except _PausedError:
                continue
            except MemoryError as error:
                reason = str(error) or _REFUSED
            self.engine.shrink(reason)

    def recall(self) -> None:
        """Divide the blocks as the run in the folder does: what is planned then is what resumes.

        Raises:
            RunFileError: the run's files are damaged or belong to other inputs.
        """
        if self.run.has_journal():
            self.descent.keep_tail(self._recorded(read_journal(self.run.journal)).tail)

    def _recorded(self, contents: JournalContents) -> Rates:
        """The rates in a journal's header, which is that of this run."""
        found = RunHeader.read(contents.header.meta, self.run.journal)
        changed = differences(found.inputs(), self._header().inputs())
        if changed:
            raise RunFileError(
                f"{self.run.path}: cannot be continued, it was started with other inputs: "
                f"{'; '.join(changed)}; use the same ones ('edgezo tune --resume -o "
                f"{self.run.path}' takes them from the run) or another folder with -o"
            )
        return found.rates

    def _use(self, rates: Rates) -> None:
        """Begin anew with these rates."""
        self.descent.use(rates)
        self.state.elapsed_s = rates.seconds

    def _resume(self) -> None:
        contents = read_journal(self.run.journal)
        self._use(self._recorded(contents))
        if self.run.snapshot.exists():
            digest = self._header().digest()
            snapshot = load_snapshot(self.run.snapshot, digest, self.state.snapshot(digest))
            # A disk that lost records it had called safe: the journal alone brings the state back,
            # and steps left out of it could never be replayed.
            if snapshot.step <= sum(1 for _ in contents.records):
                self.state.restore(snapshot)
        for number, record in enumerate(read_journal(self.run.journal).records):
            if record.step != number:
                raise RunFileError(
                    f"{self.run.journal}: step {record.step} where step {number} should be; "
                    f"it was written by something else, start again in another folder"
                )
            if number >= self.step_number:
                self._replay(record)
        self._journal = Journal.open(self.run.journal, SyncPolicy(every_steps=None, every_s=1.0))

    def _replay(self, record: StepRecord) -> None:
        try:
            self.descent.replay(record)
        except RunFileError as error:
            raise RunFileError(f"{self.run.journal}: {error}") from error

    @property
    def cache_limit(self) -> int:
        """Half of what is free on the disk of the run's folder, or of where it will be made.

        What a run that was cut off left behind counts as free.
        """
        path = self.run.path.absolute()
        there = next(folder for folder in (path, *path.parents) if folder.is_dir())
        left = self.run.cache.stat().st_size if self.run.cache.is_file() else 0
        return (shutil.disk_usage(there).free + left) // 2

    # --- what a step takes ---

    @property
    def warnings(self) -> tuple[DataWarning, ...]:
        """What the user should know about the batches."""
        return self.prober.batches.warnings

    @property
    def batch_size(self) -> int:
        """Examples a step."""
        return self.prober.batches.batch_size

    @property
    def first_order_blocks(self) -> list[int]:
        """Blocks that take first-order steps, ascending."""
        tail = self.descent.outline.tail
        return [] if tail is None else list(tail.blocks)

    @property
    def estimated_blocks(self) -> list[int]:
        """Blocks that are tuned by estimates, ascending."""
        return self.descent.outline.blocks

    @property
    def tail_blocks(self) -> int:
        """How many of the last blocks take first-order steps."""
        return self.rates.tail

    @property
    def groups(self) -> int:
        """Perturbed copies of a batch that are evaluated at once."""
        return self.descent.groups


_REFUSED = "numpy was refused memory"
_STOPPED = "stopped in a step; the state is that before it"

_GLANCE_S = 0.5
"""How often a paused run looks whether it was stopped."""


class _PausedError(Exception):
    """Ends the passes of a step that is done again later."""
