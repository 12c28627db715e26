"""A run: its parts, its life in a folder, and where it stands."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import DataWarning, ExampleSet
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import BudgetStopError, UsageError
from edgezo_runtime.governors import Governor
from edgezo_runtime.governors.gate import Gate
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.methods.config_check import check_config
from edgezo_runtime.methods.lr_schedules import fraction_done
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.training.loop import REFUSED, Stepper
from edgezo_runtime.training.probe_evaluator import Asked, ProbeEvaluator
from edgezo_runtime.training.run_log import RunLog
from edgezo_runtime.training.start import begin_from
from edgezo_runtime.training.step_evaluator import StepEvaluator
from edgezo_runtime.training.step_report import Phase, TunerStatus
from edgezo_runtime.training.training_state import TrainingState

Float32 = npt.NDArray[np.float32]


class Run:
    """What a tuner tunes; `edgezo_runtime.app.tuner.Tuner` adds what apps ask and are told.

    Args:
        engine: runs the bundle.
        examples: those the run begins with.
        config: how to tune.
        run: folder of the run; not touched yet.
        start: adapter to begin from; None for the bundle's own trainables.
        asked: the examples as questions, and who judges the answers.
        governors: say when steps may be taken.

    Attributes:
        engine: likewise.
        config: likewise.
        run: likewise.
        step_evaluator: the steps of the run.

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
        governors: Sequence[Governor] = (),
    ) -> None:
        check_config(config)
        start, config = begin_from(start, run, config)
        self.engine = engine
        self.config = config
        self.run = run
        params = None if start is None else start.params(engine.bundle)
        self.step_evaluator = StepEvaluator(engine, examples, config, params, asked)
        self._governors = tuple(governors)
        self._between = threading.RLock()
        self._gate = Gate()
        self._log = RunLog(run, self.step_evaluator, examples, config, start)
        self._stepper = Stepper(engine, self.step_evaluator, self._log, self._gate, self._between)
        self._stands = TunerStatus(0, self._stepper.loss, 0.0, 0.0, "closed")
        self._began = False
        self._closing = False
        self._took = False

    # --- life ---

    def recall(self) -> None:
        """Divide the blocks as the run in the folder does, and find the examples that were added:
        what is planned then is what resumes.

        Raises:
            RunFileError: the run's files are damaged or belong to other inputs.
        """
        self._log.recall()

    def _start(self, resume: bool, tell: Callable[[str | None], None]) -> None:
        """Begin the run in the folder, or continue the one that is there.

        Args:
            resume: False refuses a folder that holds a run.
            tell: see `Gate.wait`.
        """
        if self._closing:
            raise UsageError("the tuner is closed")
        try:
            self.run.take()
            self._took = True
            if self.run.has_journal():
                if not resume:
                    raise UsageError(
                        f"{self.run.path}: holds a run; continue it, or choose another folder"
                    )
                self._log.resume()
            else:
                self._open_cache()
                self._log.begin(self._stepper.measure(tell))
            if self.probe_evaluator.cache is None:
                self._open_cache()
            self._gate.governors = self._governors
            self._stand()
        except MemoryError as error:
            self._close()
            raise BudgetStopError(
                f"memory is short: {str(error) or REFUSED} before the first step; "
                f"{self.run.path} is as it was, or can be continued with --resume"
            ) from error
        except BaseException:
            self._close()
            raise

    def _open_cache(self) -> None:
        if self.config.prefix_cache:
            limit = self.cache_limit
            self.run.cache.unlink(missing_ok=True)
            self.probe_evaluator.cache = self.probe_evaluator.make_cache(self.run.cache, limit)

    def _close(self) -> None:
        cache, self.probe_evaluator.cache = self.probe_evaluator.cache, None
        try:
            self._log.close()
        finally:
            self.engine.close()
            if cache is not None:
                cache.close()
                self.run.cache.unlink(missing_ok=True)
            if self._took:
                self._took = False
                self.run.release()

    # --- where it stands ---

    @property
    def status(self) -> TunerStatus:
        """Where the run stands; never waits."""
        stands = self._stands  # one object, so of one step
        reason = self._gate.held or self._gate.waiting or ""
        phase = self._phase(stands.fraction_done, reason)
        return replace(stands, phase=phase, reason=reason if phase == "paused" else "")

    def _phase(self, fraction: float, reason: str) -> Phase:
        if self.closed:
            return "closed"
        if fraction >= 1:
            return "done"
        if self._gate.stopped:
            return "stopped"
        if reason:
            return "paused"
        return "running" if self._began else "ready"

    def _stand(self) -> None:
        """Tell other threads where the run stands now."""
        step, elapsed = self.step_number, self.elapsed_s
        count = len(self.examples)
        loss, done = self._stepper.loss, self.fraction_done
        self._stands = TunerStatus(step, loss, elapsed, done, "ready", examples=count)

    # --- what it is ---

    @property
    def examples(self) -> ExampleSet:
        """What is learned from, with what was added."""
        return self._log.examples

    @property
    def closed(self) -> bool:
        """Is the tuner not started, or closed?"""
        return self._log.closed

    @property
    def done(self) -> bool:
        """Is there nothing left to do?"""
        return self._gate.stopped or self.fraction_done >= 1

    @property
    def fraction_done(self) -> float:
        """Share of the run that is over, by steps or by time, whichever is further."""
        settled = self.step_evaluator.layout.settled(len(self.examples))
        return fraction_done(settled, self.step_number, self.elapsed_s, self.rates.seconds)

    @property
    def probe_evaluator(self) -> ProbeEvaluator:
        """Evaluates losses."""
        return self.step_evaluator.probe_evaluator

    @property
    def state(self) -> TrainingState:
        """Trainables, and what rules and samplers keep."""
        return self.step_evaluator.state

    @property
    def rates(self) -> Rates:
        """Learning rates and perturbation scale; measured when the run has started."""
        return self.step_evaluator.rates

    @property
    def settled(self) -> TuneConfig:
        """The configuration with "auto" filled in where that is no matter of measurement."""
        return self.step_evaluator.settled

    @property
    def scope(self) -> Scope:
        """Tokens the adapters act on."""
        return self.probe_evaluator.scope

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

    @property
    def cache_limit(self) -> int:
        """Half of what is free on the disk of the run's folder, or of where it will be made.

        What a run that was cut off left behind counts as free.
        """
        path = self.run.path.absolute()
        there = next(folder for folder in (path, *path.parents) if folder.is_dir())
        left = self.run.cache.stat().st_size if self.run.cache.is_file() else 0
        return (shutil.disk_usage(there).free + left) // 2

    @property
    def warnings(self) -> tuple[DataWarning, ...]:
        """What the user should know about the batches."""
        return self.probe_evaluator.batches.warnings

    @property
    def batch_size(self) -> int:
        """Examples a step."""
        return self.probe_evaluator.batches.batch_size

    @property
    def first_order_blocks(self) -> list[int]:
        """Blocks that take first-order steps, ascending."""
        first_order = self.step_evaluator.layout.first_order
        return [] if first_order is None else list(first_order.blocks)

    @property
    def estimated_blocks(self) -> list[int]:
        """Blocks that are tuned by estimates, ascending."""
        return self.step_evaluator.layout.blocks

    @property
    def num_first_order_blocks(self) -> int:
        """How many of the last blocks take first-order steps."""
        return self.rates.num_first_order

    @property
    def groups(self) -> int:
        """Perturbed copies of a batch that are evaluated at once."""
        return self.step_evaluator.groups
