"""Evaluates the steps of a run: losses, gradients, and the rows and tokens they took."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch, Batches
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.heavy_batches import HeavyBatches
from edgezo_runtime.data.scope import choose_scope
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.forward import SCORED_POSITIONS
from edgezo_runtime.engine.prefix_cache import NO_CACHE
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.estimators import Losses, StepInfo, Term
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.training.answer_task import AnswerTask
from edgezo_runtime.training.attempts import attempts
from edgezo_runtime.training.carried_layout import carried_count, carries_error
from edgezo_runtime.training.feedback_steps import FeedbackSteps
from edgezo_runtime.training.first_order_blocks import MOST_BATCHES, FirstOrderBlocks
from edgezo_runtime.training.measured_rates import PROBED_STEPS, Tell, measure_rates
from edgezo_runtime.training.probe_evaluator import ProbeEvaluator, RehearsedPart
from edgezo_runtime.training.trajectory import Trajectory

Float32 = npt.NDArray[np.float32]

_MOST_ROWS = 2**17
"""Rows of a run, each counted as often as a step takes it, whose order is looked at."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of the passes of a step.

    Attributes:
        batch: examples of the step.
        losses: of every probe, (probes, B) or (probes, 1), or of the pass that made a gradient,
            (1, B); (0, 0) if a loss was not finite.
        terms: terms of the gradient estimate.
        rows: number of rows that the model evaluated.
        gradient: packed gradient of the blocks that take first-order steps, or what else the record
            has.
        shown: leading rows of `losses` that are losses; 0 for all.
    """

    batch: Batch
    losses: Losses
    terms: list[Term]
    rows: int
    gradient: bytes
    shown: int = 0

    @property
    def projected_grad(self) -> float:
        """Root mean square of the projected gradients; 0 if there are none."""
        coeff = np.array([value for term in self.terms for value in term.coeff])
        return float(np.sqrt(np.mean(np.square(coeff * coeff.size)))) if coeff.size else 0.0

    @property
    def mean_loss(self) -> float:
        """Mean loss over all probes, nats; not a number if a loss was not finite."""
        losses = self.losses[: self.shown] if self.shown else self.losses
        return float(losses.mean()) if losses.size else math.nan


class StepEvaluator:
    """Evaluates the steps of a run: losses at probes, and gradients of first-order steps.

    Args:
        engine: runs the bundle.
        examples: training data.
        trajectory: the state of the run; only read.
        task: the examples as questions, and the reward.

    Raises:
        UsageError: nothing is left to train, or settings do not go together.
    """

    def __init__(
        self,
        engine: Engine,
        examples: ExampleSet,
        trajectory: Trajectory,
        task: AnswerTask | None = None,
    ) -> None:
        self._engine = engine
        self._examples = self._initial = examples
        self._trajectory = trajectory
        self._task = task
        manifest, config = engine.bundle.manifest, trajectory.settled
        scope = choose_scope(config.scope, examples, manifest.graphs.continues, manifest.scheme)
        if carries_error(config, examples.kind, scope):
            trajectory.keep_first_order(carried_count(manifest, config))
        self._arrange()

    def _arrange(self) -> None:
        """Adopt the trajectory's division of the blocks."""
        self._layout = self._trajectory.layout
        first_order, config = self._layout.first_order, self._layout.config
        first = Batches(self._initial, int(config.batch_size), config.seed)
        self._first_order = (
            None
            if first_order is None
            else FirstOrderBlocks(
                self._engine,
                first_order,
                self._layout.carried,
                first.batch,
                config.seed,
            )
        )
        self._probes = ProbeEvaluator(
            self._engine, self._examples, self._layout, self._first_order, self._task
        )
        feedback = self._layout.feedback
        self._feedback = (
            None
            if feedback is None
            else FeedbackSteps(
                self._engine,
                feedback,
                self._examples,
                self._probes.scope,
                cached=config.prefix_cache,
            )
        )
        self._check_objective()

    def _check_objective(self) -> None:
        """Refuse an objective that is one number per batch if rows differ in their probes.

        Raises:
            UsageError: the objective is the F1 of classes, and every row has its own direction.
        """
        config, estimator = self._layout.config, self._trajectory.parts.estimator
        whole = self._probes.objective.whole_batch
        if whole and self._probes.first_probes(estimator)[0].private:
            raise UsageError(
                f"`objective` f1: F1 of classes is one number per batch, and {config.method} "
                f"perturbs every row in its own way; set `method` to n-spsa, or `objective` to "
                f"accuracy"
            )

    @property
    def probes(self) -> ProbeEvaluator:
        """Evaluates losses; another object after the trajectory has divided the blocks anew."""
        if self._layout is not self._trajectory.layout:
            self._arrange()
        return self._probes

    @property
    def first_order(self) -> FirstOrderBlocks | None:
        """Gradients of the blocks that take first-order steps; None if no block does."""
        return self._first_order if self.probes else None

    def measure(self, tell: Tell) -> Rates:
        """Measure the rates that are "auto"; `tell` as in `measure_rates`."""
        own = self._trajectory
        return measure_rates(self.probes, own.state, own.settled, own.rates, self.first_order, tell)

    # --- steps ---

    def evaluate(self, info: StepInfo, check: Callable[[], None]) -> StepResult:
        """Evaluate a step, in smaller chunks if memory is refused.

        Args:
            info: the step.
            check: called at every block; raises to end the passes.
        Raises:
            DivergedError: a number is not finite.
            BudgetStopError: memory is short.
        """
        probes, state, layout = self.probes, self._trajectory.state, self._trajectory.layout
        for attempt in attempts(self._engine, check):
            with attempt:
                batch = probes.batches.batch(info.step)
                if self._feedback is not None and state.feedback is not None:
                    eps = self._trajectory.rates.eps
                    done = self._feedback.evaluate(
                        info, batch, state.theta, state.feedback, eps, probes.cache
                    )
                    return StepResult(batch, done.losses, [], done.rows, done.extra, done.shown)
                losses, terms, rows, gradient = np.empty((0, 0)), list[Term](), 0, b""
                if layout.blocks:
                    estimator = self._trajectory.parts.estimator
                    losses, terms, rows = probes.estimate(estimator, info, batch, state)
                if self._first_order is not None:
                    found = self._first_order.gradient(
                        batch, state.theta, probes.scope, probes.cache, layout.first
                    )
                    gradient = self._first_order.layout.codec.pack(found.gradients)
                    rows += batch.num_rows
                    losses = losses if losses.size else found.losses[None]
                return StepResult(batch, losses, terms, rows, gradient)
        raise AssertionError("attempts end with a result or an error")

    def without_losses(self, info: StepInfo) -> StepResult:
        """The result of a step whose losses are not finite; it makes the state roll back."""
        return StepResult(self.probes.batches.batch(info.step), np.empty((0, 0)), [], 0, b"")

    def grow(self, examples: ExampleSet, step: int) -> None:
        """Use more examples.

        Args:
            examples: the examples so far, then the new ones.
            step: the first step that uses the new ones.
        """
        self._examples = examples
        self._trajectory.layout.grow(len(examples))
        self.probes.grow(examples, step)

    # --- the cost of a step ---

    def heavy_batches(self, examples: ExampleSet) -> HeavyBatches:
        """The batches of the run by their size: those of its steps, and those that are measured.

        Any examples may come together where the run has no last step, takes further batches or has
        more examples than it began with, and where its steps have more than `_MOST_ROWS` rows.

        Args:
            examples: of the run, including those that were added.
        """
        probes, layout, batches = self.probes, self._trajectory.layout, self.probes.batches
        until = layout.config.steps
        if until and layout.blocks and layout.config.lr == "auto":
            until = max(until, PROBED_STEPS)
        if until and layout.carried is not None:
            until = max(until, MOST_BATCHES)
        known = 0 < until * batches.batch_size <= _MOST_ROWS
        known = known and len(examples) == len(self._initial)
        further = probes.takes_further(self._trajectory.parts.estimator)
        order = batches.order(until) if known and not further else None
        return HeavyBatches(examples, batches.wanted_size, order, most_scored=SCORED_POSITIONS)

    def tokens(self, result: StepResult) -> int:
        """Tokens that the model evaluated, without padding and cached tokens."""
        cache = self.probes.cache or NO_CACHE
        return result.rows // result.batch.num_rows * cache.evaluated_tokens(result.batch)

    @property
    def groups(self) -> int:
        """Perturbed copies of a batch that a pass evaluates together."""
        if self._trajectory.layout.feedback is not None:
            return 2
        if not self._trajectory.layout.blocks:
            return 1
        return len(self.probes.first_probes(self._trajectory.parts.estimator))

    def grant(self, budget_bytes: int, longest: int) -> int:
        """Bytes for keys and values of generated texts; arguments as for `ProbeEvaluator.grant`."""
        return self.probes.grant(self._trajectory.parts.estimator, budget_bytes, longest)

    def rehearse(
        self,
        others: Sequence[ExampleSet] = (),
        eval_batch_size: int = 32,
        *,
        rows: ExampleSet | None = None,
        max_rows: int | None = None,
        alone: bool = False,
        part: RehearsedPart = "all",
    ) -> None:
        """Run a step and an evaluation on heavy rows; see `ProbeEvaluator.rehearse`."""
        estimator, state = self._trajectory.parts.estimator, self._trajectory.state
        feedback = None
        if self._feedback is not None:
            feedback = partial(self._feedback.rehearse, theta=state.theta)
        self.probes.rehearse(
            estimator,
            state,
            others,
            eval_batch_size,
            rows=rows,
            max_rows=max_rows,
            alone=alone,
            part=part,
            more=feedback,
        )
