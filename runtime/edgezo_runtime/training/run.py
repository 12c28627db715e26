"""A run: its parts, its life in a folder, and its progress."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import UsageError
from edgezo_runtime.governors import Governor
from edgezo_runtime.governors.gate import Gate
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.methods.config_check import check_config
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.methods.run_length import Limit, fraction_done, limit_reached
from edgezo_runtime.training.answer_task import AnswerTask
from edgezo_runtime.training.initial_adapter import settle_initial_adapter
from edgezo_runtime.training.probe_evaluator import Cache, ProbeEvaluator
from edgezo_runtime.training.run_log import RunLog
from edgezo_runtime.training.step_evaluator import StepEvaluator
from edgezo_runtime.training.step_report import EndedBy, Phase, TunerStatus
from edgezo_runtime.training.training_state import TrainingState
from edgezo_runtime.training.trajectory import Trajectory

Float32 = npt.NDArray[np.float32]


class Run:
    """The parts of a run, which its training loop and its answers share.

    Args:
        engine: runs the bundle.
        examples: the examples that the run begins with.
        config: how to tune.
        folder: folder of the run; not touched yet.
        adapter: initial adapter; None for the bundle's own trainables.
        task: the examples as questions, and the reward that scores answers.
        governors: decide when steps may be taken.

    Attributes:
        engine: runs the bundle.
        config: how to tune, as given.
        folder: folder of the run.
        trajectory: the state of the run, and the steps that change it.
        evaluator: evaluates steps.
        log: journal, snapshot, and examples that were added.
        gate: makes steps wait or end.
        lock: held while the state changes; its holder sees the state between two steps.
        loss: mean loss of the last step, nats; not a number before the first step.
        closing: is the run about to be closed, so that it must not start any more?

    Raises:
        UsageError: the configuration is invalid, or does not fit the bundle or the data.
    """

    def __init__(
        self,
        engine: Engine,
        examples: ExampleSet,
        config: TuneConfig,
        folder: RunFolder,
        *,
        adapter: Adapter | None = None,
        task: AnswerTask | None = None,
        governors: Sequence[Governor] = (),
    ) -> None:
        check_config(config)
        adapter, config = settle_initial_adapter(adapter, folder, config)
        self.engine = engine
        self.config = config
        self.folder = folder
        params = None if adapter is None else adapter.params(engine.bundle)
        self.trajectory = Trajectory(engine.bundle, config, len(examples), params)
        self.evaluator = StepEvaluator(engine, examples, self.trajectory, task)
        self.log = RunLog(folder, self.trajectory, self.evaluator, examples, config, adapter)
        self.gate = Gate()
        self.lock = threading.RLock()
        self.loss = float("nan")
        self._governors = tuple(governors)
        self._progress = TunerStatus(0, self.loss, 0.0, 0.0, "closed")
        self.closing = False
        self._has_folder = False
        self._cache: Cache | None = None

    # --- life ---

    def start(self, measure: Callable[[], Rates], *, resume: bool) -> None:
        """Begin the run in the folder, or resume the run that the folder holds.

        Args:
            measure: measures the rates of a new run.
            resume: False refuses a folder that holds a run.
        Raises:
            InterruptedRunError: the run was stopped before it had begun.
            UsageError: the folder holds a run and `resume` is off; another tuner has the folder; or
                this run was closed.
            RunFileError: the run's files are damaged or belong to other inputs.
            MemoryError: memory was refused.
        """
        if self.closing:
            raise UsageError("the tuner is closed")
        try:
            self.folder.take()
            self._has_folder = True
            if self.folder.has_journal():
                if not resume:
                    raise UsageError(
                        f"{self.folder.path}: holds a run; resume it, or choose another folder"
                    )
                self.log.resume()
                self._open_cache()
            else:
                self._open_cache()
                self.log.begin(measure())
            self.gate.governors = self._governors
            self.note_progress()
        except BaseException:
            self.close()
            raise

    def sync(self) -> None:
        """Wait until all steps are on the disk; called before steps have to wait."""
        with self.lock:
            self.log.sync()

    def close(self) -> None:
        """Make the journal durable and release engine, cache and folder.

        Raises:
            RunFileError: the last steps cannot be written.
        """
        cache, self._cache = self._cache, None
        try:
            self.log.close()
        finally:
            self.engine.close()
            if cache is not None:
                self.probes.cache = None
                cache.close()
                self.folder.cache.unlink(missing_ok=True)
            if self._has_folder:
                self._has_folder = False
                self.folder.release()

    def _open_cache(self) -> None:
        """Make the cache of this run; measuring the rates never divides the blocks anew."""
        if self.config.prefix_cache:
            limit = self.cache_limit
            self.folder.cache.unlink(missing_ok=True)
            self._cache = self.probes.make_cache(self.folder.cache, limit)
            self.probes.cache = self._cache

    @property
    def cache_limit(self) -> int:
        """Half of the free space on the disk that has, or will have, the folder of the run.

        The cache file of a run that was interrupted counts as free.
        """
        path = self.folder.path.absolute()
        existing = next(folder for folder in (path, *path.parents) if folder.is_dir())
        old = self.folder.cache.stat().st_size if self.folder.cache.is_file() else 0
        return (shutil.disk_usage(existing).free + old) // 2

    # --- progress ---

    def note_progress(self) -> None:
        """Publish the progress of the run to other threads."""
        self._progress = TunerStatus(
            self.step_number,
            self.loss,
            self.state.elapsed_s,
            self.fraction_done,
            "ready",
            examples=len(self.examples),
            ended_by=self._limit_reached,
            steps_planned=self._settled.steps or None,
        )

    def status(self, *, begun: bool) -> TunerStatus:
        """The status of the run between two steps; never waits.

        Args:
            begun: was a step taken since the run was opened?
        """
        progress = self._progress  # one object, so all values are of one step
        reason = self.gate.held or self.gate.waiting or ""
        phase = self._phase(progress.fraction_done, reason, begun)
        return replace(
            progress,
            phase=phase,
            reason=reason if phase == "paused" else "",
            ended_by=progress.ended_by or ("stop" if self.gate.stopped else None),
        )

    def _phase(self, fraction: float, reason: str, begun: bool) -> Phase:
        if self.closed:
            return "closed"
        if fraction >= 1:
            return "done"
        if self.gate.stopped:
            return "stopped"
        if reason:
            return "paused"
        return "running" if begun else "ready"

    @property
    def closed(self) -> bool:
        """Was the run not started, or closed?"""
        return self.log.closed

    @property
    def done(self) -> bool:
        """Is no step left?"""
        return self.ended_by is not None

    @property
    def ended_by(self) -> EndedBy | None:
        """Why no step is left; None while one is."""
        return self._limit_reached or ("stop" if self.gate.stopped else None)

    @property
    def fraction_done(self) -> float:
        """Share of the run that is over: by steps or by time, whichever is larger."""
        return fraction_done(self._settled, *self._so_far)

    @property
    def _limit_reached(self) -> Limit | None:
        return limit_reached(self._settled, *self._so_far)

    @property
    def _settled(self) -> TuneConfig:
        """How to tune, with all examples that were added."""
        return self.trajectory.layout.settled(len(self.examples))

    @property
    def _so_far(self) -> tuple[int, float, float]:
        return self.step_number, self.state.elapsed_s, self.rates.seconds

    @property
    def step_number(self) -> int:
        """Number of steps that were taken."""
        return self.state.step

    # --- parts ---

    @property
    def examples(self) -> ExampleSet:
        """The training data, including examples that were added."""
        return self.log.examples

    @property
    def probes(self) -> ProbeEvaluator:
        """Evaluates losses at probes."""
        return self.evaluator.probes

    @property
    def state(self) -> TrainingState:
        """Trainables, and the state of rule and sampler."""
        return self.trajectory.state

    @property
    def rates(self) -> Rates:
        """Learning rates and perturbation scale; measured once the run has started."""
        return self.trajectory.rates

    @property
    def scope(self) -> Scope:
        """Tokens the adapters act on."""
        return self.probes.scope

    @property
    def batch_size(self) -> int:
        """Examples per step."""
        return self.probes.batches.batch_size

    @property
    def groups(self) -> int:
        """Perturbed copies of a batch that a pass evaluates together."""
        return self.evaluator.groups

    @property
    def first_order_blocks(self) -> list[int]:
        """Blocks that take first-order steps, ascending."""
        first_order = self.trajectory.layout.first_order
        return [] if first_order is None else list(first_order.blocks)
