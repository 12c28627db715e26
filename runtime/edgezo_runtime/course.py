"""A run's state and the steps applied to it: a function of bundle, configuration and journal."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import RunFileError
from edgezo_runtime.estimators import StepInfo, Term, asked_again
from edgezo_runtime.methods import assemble
from edgezo_runtime.outline import Outline
from edgezo_runtime.rates import Rates
from edgezo_runtime.step_record import StepRecord
from edgezo_runtime.tail_layout import first_tail, own_rates
from edgezo_runtime.training_state import TailSteps, TrainingState

Float32 = npt.NDArray[np.float32]

_ELAPSED_BYTES = 4


class Course:
    """The way of a run's trainables, as its records say. Evaluates nothing and reads no data.

    Args:
        bundle: the model.
        config: how to tune.
        rows: examples the run has.

    Attributes:
        bundle: likewise.
        outline: what trains, and what a step is told.
        rates: learning rates and perturbation scale.
        state: trainables, and what rules and samplers keep.

    Raises:
        UsageError: nothing is left to train, or what is asked for does not go together.
    """

    def __init__(self, bundle: Bundle, config: TuneConfig, rows: int) -> None:
        self.bundle = bundle
        self._config = config
        self._rows = rows
        self._keeps = False
        self._arrange(first_tail(config, bundle.manifest))

    @property
    def settled(self) -> TuneConfig:
        """The configuration with "auto" filled in where that is no matter of measurement."""
        return self.outline.config

    # --- before the first step ---

    def _arrange(self, tail: int) -> None:
        """Divide the blocks: so many of the last ones to first-order steps. The state is new."""
        manifest = self.bundle.manifest
        self.outline = Outline(manifest, self._config, self._rows, tail)
        self._use(Rates.of(self._config, manifest.scheme, tail))

    def _use(self, rates: Rates) -> None:
        self.rates = rates
        self._parts = assemble(self.settled, rates.eps)
        self.begin()

    def use(self, rates: Rates) -> None:
        """Go on with these rates and their division of the blocks; the state begins anew."""
        self.keep_tail(rates.tail)
        self._use(rates)

    def keep_tail(self, tail: int) -> None:
        """Leave so many of the last blocks to first-order steps, whatever there is room for."""
        self._keeps = True
        if tail != self.rates.tail:
            self._arrange(tail)

    def drop_tail(self) -> bool:
        """Leave all blocks to estimates, if that is what "auto" can mean; before a start.

        Returns:
            Whether anything changed.
        """
        if self.outline.tail is None or self._keeps or not self._config.wants_tail:
            return False
        self._arrange(0)
        return True

    def begin(self) -> None:
        """Return to where a run begins."""
        initial = self.bundle.trainables()
        tail = None
        if self.outline.tail is not None:
            values = {name: initial[name] for name in self.outline.tail.names}
            own = dict.fromkeys(values, self.rates.tail_lr)
            if self._config.hybrid_lr == "auto":
                own = own_rates(values, self.rates.tail_lr)
            tail = TailSteps({name: rate / self.rates.lr for name, rate in own.items()})
        infos = self.bundle.manifest.trainables
        scales = [info.name for info in infos if info.role == "channel_scale"]
        self.state = TrainingState(
            initial, self.outline.trained, self.settled, self._parts, tail, scales
        )

    # --- steps ---

    def apply(self, record: StepRecord, terms: list[Term]) -> None:
        """Update the state by a step.

        Raises:
            RunFileError: the record's gradient does not fit the run.
        """
        exact: dict[str, Float32] = {}
        if self.outline.tail is not None and record.losses.size:
            exact = self.outline.tail.unpack(record.extra[_ELAPSED_BYTES:])
        self.state.apply(record, terms, exact)

    def replay(self, record: StepRecord) -> None:
        """Apply a recorded step.

        Raises:
            RunFileError: it is not the next one, or does not fit the run.
        """
        info = self.outline.info(record.step, record.blocks, record.lr)
        self._require_fit(record, info)
        terms: list[Term] = []
        if record.losses.size and record.blocks:
            terms = asked_again(self._parts.estimator, info, record.losses.astype(np.float64))
        self.apply(record, terms)
        self.state.elapsed_s = int.from_bytes(record.extra[:_ELAPSED_BYTES], "little") / 1000

    def _require_fit(self, record: StepRecord, info: StepInfo) -> None:
        """Refuse a record that no run like this one writes."""
        if record.step != self.state.step:
            raise RunFileError(f"step {record.step} follows step {self.state.step - 1}")
        if self.state.hopeless:
            raise RunFileError(f"step {record.step} follows the end of the run: it diverged")
        if record.seed != info.seed:
            raise RunFileError(f"step {record.step} has another seed than a step of this run")
        if not set(record.blocks) <= set(self.outline.blocks):
            raise RunFileError(f"step {record.step} has blocks that this run does not estimate for")
        if not (math.isfinite(record.lr) and np.isfinite(record.losses).all()):
            raise RunFileError(f"step {record.step} has numbers that are not finite")


def pack_elapsed(seconds: float) -> bytes:
    """Milliseconds as the first bytes of a record's extra: where a time-based schedule goes on."""
    return min(int(seconds * 1000), 2**32 - 1).to_bytes(_ELAPSED_BYTES, "little")
