"""A run's state and the steps applied to it: a function of bundle, configuration and journal."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import RunFileError
from edgezo_runtime.journal.step_record import RecordExtra, StepRecord
from edgezo_runtime.methods.catalogue import assemble
from edgezo_runtime.methods.estimators import Losses, StepInfo, Term, replay_estimator
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.training.first_order_layout import first_order_count, first_order_rates
from edgezo_runtime.training.layout import RunLayout
from edgezo_runtime.training.training_state import FirstOrderRates, TrainingState

Float32 = npt.NDArray[np.float32]

_MOST_ROWS = 2**40


class Trajectory:
    """The state of a run and the steps that its records describe. Evaluates nothing.

    Args:
        bundle: the model.
        config: how to tune.
        rows: examples the run begins with.
        start: trainables to begin from; None for the bundle's own.

    Attributes:
        bundle: the model.
        layout: which blocks train, and by what; another object whenever that changes.
        rates: learning rates and perturbation scale.
        parts: estimator, rule and sampler of the method.
        state: trainables, and the state of rules and samplers.

    Raises:
        UsageError: nothing is left to train, or what is asked for does not go together.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: TuneConfig,
        rows: int,
        start: Mapping[str, Float32] | None = None,
    ) -> None:
        self.bundle = bundle
        self._start = start
        self._config = config
        self._rows = rows
        self._keeps = False
        self._arrange(first_order_count(config, bundle.manifest))

    @property
    def settled(self) -> TuneConfig:
        """The configuration with "auto" filled in where that is no matter of measurement."""
        return self.layout.config

    # --- before the first step ---

    def _arrange(self, first_order: int) -> None:
        """Divide the blocks: so many of the last ones to first-order steps. The state is new."""
        manifest = self.bundle.manifest
        self.layout = RunLayout(manifest, self._config, self._rows, first_order)
        self._use(Rates.of(self._config, manifest.scheme, first_order))

    def _use(self, rates: Rates) -> None:
        self.rates = rates
        self.parts = assemble(self.settled, rates.eps)
        self.begin()

    def use(self, rates: Rates) -> None:
        """Go on with these rates and their division of the blocks; the state begins anew."""
        self.keep_first_order(rates.num_first_order)
        self._use(rates)

    def keep_first_order(self, first_order: int) -> None:
        """Leave so many of the last blocks to first-order steps, whatever there is room for."""
        self._keeps = True
        if first_order != self.rates.num_first_order:
            self._arrange(first_order)

    def drop_first_order(self) -> bool:
        """Leave all blocks to estimates, if that is what "auto" can mean; before a start.

        Returns:
            Whether anything changed.
        """
        if self.layout.first_order is None or self._keeps or not self._config.wants_first_order:
            return False
        self._arrange(0)
        return True

    def initial(self) -> dict[str, Float32]:
        """The trainables that the run begins from; the caller's own."""
        if self._start is None:
            return self.bundle.trainables()
        return {name: value.copy() for name, value in self._start.items()}

    def begin(self) -> None:
        """Return to where a run begins."""
        self.layout.grow(self._rows)
        initial = self.initial()
        first_order = None
        if self.layout.first_order is not None:
            values = {name: initial[name] for name in self.layout.first_order.names}
            own = dict.fromkeys(values, self.rates.first_order_lr)
            if self._config.first_order_lr == "auto":
                own = first_order_rates(values, self.rates.first_order_lr)
            first_order = FirstOrderRates(
                {name: rate / self.rates.lr for name, rate in own.items()}
            )
        infos = self.bundle.manifest.trainables
        scales = [info.name for info in infos if info.role == "channel_scale"]
        self.state = TrainingState(
            initial, self.layout.trained, self.settled, self.parts, first_order, scales
        )

    # --- steps ---

    def info(self, lr: float) -> StepInfo:
        """The next step, as the estimator is told of it.

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
        if self.layout.first_order is not None and record.losses.size:
            exact = self.layout.first_order.unpack(self._extra(record).gradient)
        self.state.apply(record, terms, exact)

    def replay(self, record: StepRecord) -> None:
        """Apply a recorded step.

        Raises:
            RunFileError: it is not the next one, or does not fit the run.
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
        """Take note of how many examples there were when a recorded step was taken.

        Returns:
            Whether there were more than before.
        Raises:
            RunFileError: there were fewer, or no run has so many.
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
            losses: of its probes.
            gradient: of the first-order blocks, packed.
            elapsed_s: seconds of the run until now.
        """
        rows = self.layout.rows
        extra = RecordExtra(elapsed_s, gradient, 0 if rows == self._rows else rows).pack()
        return StepRecord(info.step, info.seed, info.lr, info.blocks, losses, extra=extra)

    def _extra(self, record: StepRecord) -> RecordExtra:
        """What a record keeps besides losses.

        Raises:
            RunFileError: it is not of this run.
        """
        first_order = self.layout.first_order
        return RecordExtra.unpack(
            record.extra,
            first_order.nbytes if first_order is not None and record.losses.size else 0,
        )

    def _require_fit(self, record: StepRecord, info: StepInfo) -> None:
        """Refuse a record that no run like this one writes."""
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
