"""What a step of a run evaluates: estimates, and exact gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.prefix_cache import NO_CACHE
from edgezo_runtime.errors import UsageError
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.methods.estimators import Losses, StepInfo, Term
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.training.first_order_blocks import FirstOrderBlocks
from edgezo_runtime.training.measured_rates import measure_rates
from edgezo_runtime.training.probe_evaluator import Asked, ProbeEvaluator
from edgezo_runtime.training.trajectory import Trajectory

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What was found on a step's batch.

    Attributes:
        batch: the batch.
        losses: of every probe, (probes, B), or of the pass of a gradient, (1, B); (0, 0) where one
            was not finite.
        terms: of the estimate.
        rows: of the model, evaluated for it.
        exact: gradient of the first_order, packed.
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


class StepEvaluator(Trajectory):
    """The steps of a run as they are taken: what they apply comes from the model and the data.

    Args:
        engine: runs the bundle.
        examples: training data.
        config: how to tune.
        start: trainables to begin from; None for the bundle's own.
        asked: the examples as questions, and who judges the answers.

    Attributes:
        probe_evaluator: evaluates losses.
        first_order: gradients of the blocks that take first-order steps, if any do.

    Raises:
        UsageError: nothing is left to train, or what is asked for does not go together.
    """

    def __init__(
        self,
        engine: Engine,
        examples: ExampleSet,
        config: TuneConfig,
        start: Mapping[str, Float32] | None = None,
        asked: Asked | None = None,
    ) -> None:
        self._asked = asked
        self._engine = engine
        self._examples = examples
        super().__init__(engine.bundle, config, len(examples), start)

    def _arrange(self, first_order: int) -> None:
        super()._arrange(first_order)
        layout = self.layout.first_order
        self.first_order = None if layout is None else FirstOrderBlocks(self._engine, layout)
        self.probe_evaluator = ProbeEvaluator(
            self._engine, self._examples, self.layout, self.first_order, self._asked
        )
        self._check_objective()

    def _check_objective(self) -> None:
        """Refuse to tell rows apart by a number of the whole batch.

        Raises:
            UsageError: the objective is one number a batch, and every row is perturbed its own way.
        """
        whole, config = self.probe_evaluator.objective.whole_batch, self.settled
        if whole and self.probe_evaluator.first_probes(self._parts.estimator)[0].private:
            raise UsageError(
                f"--objective f1: F1 of classes is one number for a batch, and {config.method} "
                f"perturbs every row its own way; take --method n-spsa, or --objective accuracy"
            )

    def measure(self) -> Rates:
        """The rates that are left to measurement."""
        config, state = self.settled, self.state
        return measure_rates(self.probe_evaluator, state, config, self.rates, self.first_order)

    # --- steps ---

    def info(self, step: int, lr: float) -> StepInfo:
        """A step to come."""
        return self.layout.info(step, self.layout.active(step), float(np.float32(lr)))

    def evaluate(self, info: StepInfo) -> StepResult:
        """Evaluate what a step needs.

        Raises:
            DivergedError: a number is not finite.
            MemoryError: memory was refused.
            BudgetStopError: it is short.
        """
        probe_evaluator = self.probe_evaluator
        batch = probe_evaluator.batches.batch(info.step)
        losses, terms, rows, exact = np.empty((0, 0)), list[Term](), 0, b""
        if self.layout.blocks:
            losses, terms, rows = probe_evaluator.estimate(
                self._parts.estimator, info, batch, self.state
            )
        if self.first_order is not None:
            found = self.first_order.gradient(
                batch,
                self.state.theta,
                probe_evaluator.scope,
                probe_evaluator.cache,
                self.layout.first,
            )
            exact = self.first_order.layout.pack(found.gradients)
            rows += batch.num_rows
            losses = losses if losses.size else found.losses[None]
        return StepResult(batch, losses, terms, rows, exact)

    def lost(self, info: StepInfo) -> StepResult:
        """What stands for a step whose losses are not finite: the state goes back for it."""
        return StepResult(
            self.probe_evaluator.batches.batch(info.step), np.empty((0, 0)), [], 0, b""
        )

    def record(self, info: StepInfo, found: StepResult, elapsed_s: float) -> StepRecord:
        """A step as the journal keeps it."""
        extra = self.pack_extra(elapsed_s, found.exact)
        return StepRecord(info.step, info.seed, info.lr, info.blocks, found.losses, extra=extra)

    def grow(self, examples: ExampleSet, step: int) -> None:
        """Go on with more examples.

        Args:
            examples: those there were, and others behind them.
            step: the first that they are for.
        """
        self._examples = examples
        self.layout.grow(len(examples))
        self.probe_evaluator.grow(examples, step)

    # --- what a step takes ---

    def mean_loss(self, found: StepResult) -> float:
        """Over all probes; not a number where one was not finite."""
        return float(found.losses.mean()) if found.losses.size else math.nan

    def shown_lr(self, info: StepInfo) -> float:
        """The rate of a step's estimates, or of its first-order steps where it has none."""
        return info.lr if info.blocks else info.lr * self.rates.first_order_lr / self.rates.lr

    def tokens(self, found: StepResult) -> int:
        """Tokens that were evaluated, padding and what was kept not counted."""
        batch = found.batch
        cache = self.probe_evaluator.cache or NO_CACHE
        return found.rows // batch.num_rows * cache.evaluated_tokens(batch)

    @property
    def groups(self) -> int:
        """Perturbed copies of a batch that are evaluated at once."""
        if not self.layout.blocks:
            return 1
        return len(self.probe_evaluator.first_probes(self._parts.estimator))

    def grant(self, budget_bytes: int, longest: int) -> int:
        """See `ProbeEvaluator.grant`."""
        return self.probe_evaluator.grant(self._parts.estimator, budget_bytes, longest)

    def rehearse(
        self,
        others: Sequence[ExampleSet] = (),
        eval_batch_size: int = 32,
        *,
        max_rows: int | None = None,
    ) -> None:
        """See `ProbeEvaluator.rehearse`."""
        estimator = self._parts.estimator
        self.probe_evaluator.rehearse(
            estimator, self.state, others, eval_batch_size, max_rows=max_rows
        )
