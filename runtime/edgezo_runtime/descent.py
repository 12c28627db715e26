"""What a step of a run computes, and how it is applied: estimates, exact gradients, the state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.batches import Batch
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.engine import Engine
from edgezo_runtime.estimators import Losses, StepInfo, Term, ask, in_turn
from edgezo_runtime.example_set import ExampleSet
from edgezo_runtime.hybrid import HybridTail, first_tail, own_rates
from edgezo_runtime.measured_rates import measure_rates
from edgezo_runtime.methods import assemble
from edgezo_runtime.prefix_cache import AnswerCache
from edgezo_runtime.prober import Prober
from edgezo_runtime.rates import Rates
from edgezo_runtime.step_record import StepRecord
from edgezo_runtime.training_state import TailSteps, TrainingState

Float32 = npt.NDArray[np.float32]

_ELAPSED_BYTES = 4


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What was found on a step's batch.

    Attributes:
        batch: the batch.
        losses: of every probe, (probes, B), or of the pass of a gradient, (1, B); (0, 0) where one
            was not finite.
        terms: of the estimate.
        rows: of the model, evaluated for it.
        exact: gradient of the tail, packed.
    """

    batch: Batch
    losses: Losses
    terms: list[Term]
    rows: int
    exact: bytes

    @property
    def projected_grad(self) -> float:
        """Root mean square of the projected gradients; 0 where there are none."""
        coeff = np.array([value for term in self.terms for value in term.coeff])
        return float(np.sqrt(np.mean(np.square(coeff * coeff.size)))) if coeff.size else 0.0


class Descent:
    """The steps of a run, apart from when they are taken and where they are kept.

    Args:
        engine: runs the bundle.
        examples: training data.
        config: how to tune.

    Attributes:
        prober: evaluates losses.
        tail: the blocks that take first-order steps, if any do.
        settled: the configuration with "auto" filled in where that is no matter of measurement.
        rates: learning rates and perturbation scale.
        state: trainables, and what rules and samplers keep.

    Raises:
        UsageError: nothing is left to train, or what is asked for does not go together.
    """

    def __init__(self, engine: Engine, examples: ExampleSet, config: TuneConfig) -> None:
        self._engine = engine
        self._examples = examples
        self._config = config
        self._keeps = False
        self._arrange(first_tail(config, engine.bundle.manifest))

    def keep_tail(self, tail: int) -> None:
        """Leave so many of the last blocks to first-order steps, whatever there is room for."""
        self._keeps = True
        if tail != self.rates.tail:
            self._arrange(tail)

    def _arrange(self, tail: int) -> None:
        """Divide the blocks: so many of the last ones to first-order steps. The state is new."""
        self.tail = HybridTail(self._engine, tail, self._config) if tail else None
        self.prober = Prober(self._engine, self._examples, self._config, self.tail)
        self.settled = self.prober.config
        self._use(Rates.of(self._config, self._engine.bundle.manifest.scheme, tail))

    def _use(self, rates: Rates) -> None:
        self.rates = rates
        self._parts = assemble(self.settled, rates.eps)
        self.begin()

    def use(self, rates: Rates) -> None:
        """Go on with these rates and their division of the blocks; the state begins anew."""
        self.keep_tail(rates.tail)
        self._use(rates)

    def drop_tail(self) -> bool:
        """Leave all blocks to estimates, if that is what "auto" can mean; before a start.

        Returns:
            Whether anything changed.
        """
        if self.tail is None or self._keeps or not self._config.wants_tail:
            return False
        self._arrange(0)
        return True

    def begin(self) -> None:
        """Return to where a run begins."""
        bundle = self._engine.bundle
        initial = bundle.trainables()
        tail = None
        if self.tail is not None:
            values = {name: initial[name] for name in self.tail.names}
            own = dict.fromkeys(values, self.rates.tail_lr)
            if self._config.hybrid_lr == "auto":
                own = own_rates(values, self.rates.tail_lr)
            tail = TailSteps({name: rate / self.rates.lr for name, rate in own.items()})
        scales = [info.name for info in bundle.manifest.trainables if info.role == "channel_scale"]
        self.state = TrainingState(
            initial, self.prober.trained, self.settled, self._parts, tail, scales
        )

    def measure(self, interrupted: Callable[[], None]) -> Rates:
        """The rates that are left to measurement.

        Args:
            interrupted: called between passes; raises to end it.
        """
        config, state = self.settled, self.state
        return measure_rates(self.prober, state, config, self.rates, self.tail, interrupted)

    # --- steps ---

    def info(self, step: int, lr: float) -> StepInfo:
        """A step to come."""
        return self.prober.info(step, self.prober.active(step), float(np.float32(lr)))

    def evaluate(self, info: StepInfo) -> Evaluated:
        """Evaluate what a step needs.

        Raises:
            DivergedError: a number is not finite.
            MemoryError: memory was refused.
            BudgetStopError: it is short.
        """
        prober = self.prober
        batch = prober.batches.batch(info.step)
        losses, terms, rows, exact = np.empty((0, 0)), list[Term](), 0, b""
        if prober.blocks:
            losses, terms, rows = prober.estimate(self._parts.estimator, info, batch, self.state)
        if self.tail is not None:
            found = self.tail.gradient(
                batch, self.state.theta, prober.scope, prober.cache, prober.first
            )
            exact = self.tail.pack(found.gradients)
            rows += batch.num_rows
            losses = losses if losses.size else found.losses[None]
        return Evaluated(batch, losses, terms, rows, exact)

    def lost(self, info: StepInfo) -> Evaluated:
        """What stands for a step whose losses are not finite: the state goes back for it."""
        return Evaluated(self.prober.batches.batch(info.step), np.empty((0, 0)), [], 0, b"")

    def record(self, info: StepInfo, found: Evaluated, elapsed_s: float) -> StepRecord:
        """A step as the journal keeps it."""
        extra = _pack_elapsed(elapsed_s) + found.exact
        return StepRecord(info.step, info.seed, info.lr, info.blocks, found.losses, extra=extra)

    def apply(self, record: StepRecord, terms: list[Term]) -> None:
        """Update the state by a step.

        Raises:
            RunFileError: the record's gradient does not fit the run.
            DivergedError: the run diverged too often.
        """
        exact: dict[str, Float32] = {}
        if self.tail is not None and record.losses.size:
            exact = self.tail.unpack(record.extra[_ELAPSED_BYTES:])
        self.state.apply(record, terms, exact)

    def replay(self, record: StepRecord) -> None:
        """Apply a recorded step without evaluating anything."""
        terms: list[Term] = []
        if record.losses.size and record.blocks:
            info = self.prober.info(record.step, record.blocks, record.lr)
            recorded = in_turn(record.losses.astype(np.float64))
            terms = ask(self._parts.estimator, info, recorded)
        self.apply(record, terms)
        self.state.elapsed_s = int.from_bytes(record.extra[:_ELAPSED_BYTES], "little") / 1000

    # --- what a step takes ---

    def mean_loss(self, found: Evaluated) -> float:
        """Over all probes; not a number where one was not finite."""
        return float(found.losses.mean()) if found.losses.size else math.nan

    def shown_lr(self, info: StepInfo) -> float:
        """The rate of a step's estimates, or of its first-order steps where it has none."""
        return info.lr if info.blocks else info.lr * self.rates.tail_lr / self.rates.lr

    def tokens(self, found: Evaluated) -> int:
        """Tokens that were evaluated, padding and what was kept not counted."""
        batch = found.batch
        answers = isinstance(self.prober.cache, AnswerCache)
        tokens = batch.num_rows if answers else int(batch.lengths.sum())
        return found.rows // batch.num_rows * tokens

    @property
    def groups(self) -> int:
        """Perturbed copies of a batch that are evaluated at once."""
        if not self.prober.blocks:
            return 1
        return len(self.prober.first_probes(self._parts.estimator))

    def rehearse(
        self,
        others: Sequence[ExampleSet] = (),
        eval_batch_size: int = 32,
        *,
        max_rows: int | None = None,
    ) -> None:
        """See `Prober.rehearse`."""
        estimator = self._parts.estimator
        self.prober.rehearse(estimator, self.state, others, eval_batch_size, max_rows=max_rows)


def _pack_elapsed(seconds: float) -> bytes:
    """Milliseconds as 4 bytes: where a time-based schedule goes on."""
    return min(int(seconds * 1000), 2**32 - 1).to_bytes(_ELAPSED_BYTES, "little")
