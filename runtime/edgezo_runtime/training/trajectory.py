"""The state of a run and its recorded steps: a function of bundle, configuration and journal."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.step_record import RecordExtra, StepRecord
from edgezo_runtime.methods.catalogue import assemble
from edgezo_runtime.methods.estimators import Losses, StepInfo, Term, replay_estimator
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.training.feedback_state import FeedbackState
from edgezo_runtime.training.first_order_layout import first_order_count, first_order_rates
from edgezo_runtime.training.layout import RunLayout
from edgezo_runtime.training.training_state import TrainingState

Float32 = npt.NDArray[np.float32]

_MOST_ROWS = 2**40


class Trajectory:
    """The state of a run and the steps that its records describe. Evaluates nothing.

    Args:
        bundle: the model.
        config: how to tune.
        rows: number of examples that the run begins with.
        params: tensors of the initial adapter; None for the bundle's own trainables.

    Attributes:
        bundle: the model.
        layout: the division of the blocks; another object after every change.
        rates: learning rates and perturbation scale.
        parts: estimator, rule and sampler of the method.
        state: trainables, and the state of rule and sampler.

    Raises:
        UsageError: nothing is left to train, or settings do not go together.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: TuneConfig,
        rows: int,
        params: Mapping[str, Float32] | None = None,
    ) -> None:
        self.bundle = bundle
        self._params = params
        self._config = config
        self._rows = rows
        self._fixed = False
        self._arrange(first_order_count(config, bundle.manifest))

    @property
    def settled(self) -> TuneConfig:
        """The configuration with every "auto" filled in that needs no measurement."""
        return self.layout.config

    # --- before the first step ---

    def _arrange(self, first_order: int) -> None:
        """Divide the blocks between estimates and first-order steps, and begin with a new state."""
        manifest = self.bundle.manifest
        self.layout = RunLayout(manifest, self._config, self._rows, first_order)
        self._use(Rates.of(self._config, manifest.scheme, first_order))

    def _use(self, rates: Rates) -> None:
        self.rates = rates
        self.parts = assemble(self.settled, rates.eps)
        self.begin()

    def use(self, rates: Rates) -> None:
        """Adopt rates and their division of the blocks, and begin with a new state."""
        self.keep_first_order(rates.num_first_order)
        self._use(rates)

    def keep_first_order(self, first_order: int) -> None:
        """Fix the number of last blocks that take first-order steps, whatever the budget allows."""
        self._fixed = True
        if first_order != self.rates.num_first_order:
            self._arrange(first_order)

    def drop_first_order(self) -> bool:
        """Estimate the gradients of all blocks, if "auto" permits that; before the first step.

        Returns:
            Whether anything changed.
        """
        if self.layout.first_order is None or self._fixed or not self._config.wants_first_order:
            return False
        self._arrange(0)
        return True

    def initial(self) -> dict[str, Float32]:
        """Copies of the trainables that the run begins with."""
        if self._params is None:
            return self.bundle.trainables()
        return {name: value.copy() for name, value in self._params.items()}

    def begin(self) -> None:
        """Return to the state before the first step."""
        self.layout.grow(self._rows)
        initial = self.initial()
        first_order = None
        if self.layout.first_order is not None:
            values = {name: initial[name] for name in self.layout.first_order.names}
            own = dict.fromkeys(values, self.rates.first_order_lr)
            if self._config.first_order_lr == "auto":
                own = first_order_rates(values, self.rates.first_order_lr)
            first_order = {name: rate / self.rates.lr for name, rate in own.items()}
        feedback = None
        if self.layout.feedback is not None:
            if self._params is not None:
                raise UsageError(
                    "`adapter`: feedback begins with adapters of its own; leave it out, or choose "
                    "another method"
                )
            feedback = FeedbackState(self.layout.feedback, self.bundle.manifest.scheme.scale)
            first_order = dict.fromkeys(self.layout.feedback.tensors, 1.0)
            for site in self.layout.feedback.sites:
                for name in (site.name_a, site.name_b):
                    initial[name] = np.zeros_like(initial[name])
        infos = self.bundle.manifest.trainables
        scales = [info.name for info in infos if info.role == "channel_scale"]
        self.state = TrainingState(
            initial, self.layout.trained, self.settled, self.parts, first_order, scales, feedback
        )

    # --- steps ---

    def info(self, lr: float) -> StepInfo:
        """The inputs of the estimator for the next step.

        Args:
            lr: learning rate of the step; rounded to float32, as the journal stores it.
        """
        step = self.state.step
        return self.layout.info(step, self.layout.active(step), float(np.float32(lr)))

    def apply(self, record: StepRecord, terms: list[Term]) -> None:
        """Update the state by a step.

        Raises:
            RunFileError: the record's gradient does not fit the run.
        """
        exact: dict[str, Float32] = {}
        feedback = self.state.feedback
        if feedback is not None and record.losses.size:
            extra = self._extra(record).gradient
            if feedback.learning != feedback.has_pairs(record):
                what = "no pairs" if feedback.learning else "pairs"
                raise RunFileError(f"step {record.step} has {what}, unlike this run")
            if feedback.learning:
                self.state.observe(record, extra)
                return
            exact = feedback.layout.codec.unpack(extra)
        if self.layout.first_order is not None and record.losses.size:
            exact = self.layout.first_order.codec.unpack(self._extra(record).gradient)
        self.state.apply(record, terms, exact)

    def replay(self, record: StepRecord) -> None:
        """Apply a recorded step.

        Raises:
            RunFileError: the record is not that of the next step, or does not fit the run.
        """
        self.see_rows(record)
        info = self.layout.info(record.step, record.blocks, record.lr)
        self._require_fit(record, info)
        terms: list[Term] = []
        if record.losses.size and record.blocks:
            terms = replay_estimator(self.parts.estimator, info, record.losses.astype(np.float64))
        self.apply(record, terms)
        self.state.elapsed_s = self._extra(record).elapsed_s

    def see_rows(self, record: StepRecord) -> bool:
        """Adopt the number of examples that a recorded step had.

        Returns:
            Whether the step had more examples than the one before.
        Raises:
            RunFileError: the step had fewer examples, or more than any run has.
        """
        rows = self._extra(record).rows or self._rows
        known = self.layout.rows
        if not known <= rows <= _MOST_ROWS:
            raise RunFileError(f"step {record.step} has {rows} examples, the step before {known}")
        if rows == known:
            return False
        self.layout.grow(rows)
        return True

    def record(
        self, info: StepInfo, losses: Losses, gradient: bytes, elapsed_s: float
    ) -> StepRecord:
        """The record of a step, as the journal stores it.

        Args:
            info: the step.
            losses: losses of its probes.
            gradient: packed gradient of the blocks that take first-order steps.
            elapsed_s: seconds that the run has taken so far.
        """
        rows = self.layout.rows
        extra = RecordExtra(elapsed_s, gradient, 0 if rows == self._rows else rows).pack()
        return StepRecord(info.step, info.seed, info.lr, info.blocks, losses, extra=extra)

    def _extra(self, record: StepRecord) -> RecordExtra:
        """Unpack what a record stores besides losses.

        Raises:
            RunFileError: it does not fit the run.
        """
        feedback, first_order, nbytes = self.state.feedback, self.layout.first_order, 0
        if feedback is not None:
            nbytes = feedback.extra_bytes(record)
        elif first_order is not None and record.losses.size:
            nbytes = first_order.codec.nbytes
        return RecordExtra.unpack(record.extra, nbytes)

    def _require_fit(self, record: StepRecord, info: StepInfo) -> None:
        """Refuse a record that this run cannot have written."""
        if record.step != self.state.step:
            raise RunFileError(f"step {record.step} follows step {self.state.step - 1}")
        if self.state.hopeless:
            raise RunFileError(f"step {record.step} follows the end of the run: it diverged")
        if record.seed != info.seed:
            raise RunFileError(f"step {record.step} has another seed than a step of this run")
        if not set(record.blocks) <= set(self.layout.blocks):
            raise RunFileError(f"step {record.step} has blocks that this run does not estimate for")
        if not (math.isfinite(record.lr) and np.isfinite(record.losses).all()):
            raise RunFileError(f"step {record.step} has numbers that are not finite")
