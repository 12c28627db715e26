"""Evaluates losses at probes: chooses rows, blocks, directions and cached states."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch, Batches, heaviest, make_batch
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.scope import Scope, choose_scope
from edgezo_runtime.engine.answer_states import KeyValueLayout
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.forward import FirstActive
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.engine.pair_coding import code_matrices
from edgezo_runtime.engine.perturbed import PerturbedParams
from edgezo_runtime.engine.prefix_cache import AnswerCache, PrefixCache
from edgezo_runtime.evaluation.objectives import ClassObjective, Probed, choose_objective
from edgezo_runtime.methods.estimators import (
    Estimator,
    EstimatorRun,
    Losses,
    Probe,
    StepInfo,
    Term,
    record_losses,
)
from edgezo_runtime.noise import derive_seed
from edgezo_runtime.training.answer_task import AnswerTask
from edgezo_runtime.training.first_order_blocks import FirstOrderBlocks
from edgezo_runtime.training.layout import RunLayout
from edgezo_runtime.training.step_directions import StepDirections
from edgezo_runtime.training.training_state import TrainingState

RehearsedPart = Literal["all", "evaluations", "losses", "gradient"]
"""What a rehearsal runs: evaluations, the losses of a step, the gradient of a first-order one, or
all of them."""

Float32 = npt.NDArray[np.float32]
Cache = PrefixCache | AnswerCache


class Places(TypedDict):
    """Arguments of `Engine.score` besides batch and parameters."""

    code: tuple[Float32, Float32]
    first_active: FirstActive
    cache: Cache | None
    cache_block: int
    scope: Scope


_LOSS = ClassObjective("loss")

_MOST_FURTHER = 2**16
"""Most further batches of a step."""


class ProbeEvaluator:
    """Evaluates the probes of an estimator.

    Args:
        engine: runs the bundle.
        examples: training data.
        layout: the blocks and tensors that train.
        first_order: gradients of the blocks that take first-order steps; None if no block does.
        task: the examples as questions, and the reward.

    Attributes:
        layout: the blocks and tensors that train.
        objective: the quantity that the run optimizes.
        scope: tokens the adapters act on.
        batches: the order of the data.
        cache: states that do not change between passes; None for none.

    Raises:
        UsageError: the scope does not fit the bundle.
    """

    def __init__(
        self,
        engine: Engine,
        examples: ExampleSet,
        layout: RunLayout,
        first_order: FirstOrderBlocks | None = None,
        task: AnswerTask | None = None,
    ) -> None:
        manifest = engine.bundle.manifest
        self._engine = engine
        self._examples = examples
        self.layout = layout
        self._first_order = first_order
        config = layout.config
        batch = int(config.batch_size)
        self.batches = Batches(examples, batch, config.seed)
        self._further = Batches(examples, batch, derive_seed(config.seed, "further"))
        self.scope = choose_scope(
            config.scope, examples, manifest.graphs.continues, manifest.scheme
        )
        self.cache: Cache | None = None
        task = task or AnswerTask()
        self.objective = choose_objective(
            config, engine, examples, task.questions, self.scope, task.reward
        )

    @property
    def num_examples(self) -> int:
        """Number of examples that steps use."""
        return len(self._examples)

    def grow(self, examples: ExampleSet, step: int) -> None:
        """Use more examples from a step on; the cached states stay valid."""
        known = len(self._examples)
        self._examples = examples
        self.batches.grow(examples, step)
        self._further.grow(examples, step * _MOST_FURTHER)
        if self.cache is not None:
            each = examples.sequences_per_example
            self.cache.extend(examples.sequence_lengths()[known * each :])

    def estimate(
        self,
        estimator: Estimator,
        info: StepInfo,
        batch: Batch,
        state: TrainingState,
        *,
        on_loss: bool = False,
    ) -> tuple[Losses, list[Term], int]:
        """Evaluate the probes of an estimator.

        Args:
            estimator: estimates the gradient.
            info: the step.
            batch: examples of the step.
            state: state before the step; only read.
            on_loss: evaluate the loss, whatever the objective of the run is.

        Returns:
            The losses of all probes, (probes, B) or (probes, 1); the terms of the gradient; and the
            number of rows that the model evaluated.

        Raises:
            DivergedError: a loss is not finite.
            MemoryError: memory was refused.
            BudgetStopError: memory is short.
        """
        directions = StepDirections(state)
        objective = _LOSS if on_loss else self.objective
        run = EstimatorRun(estimator, info)
        rounds: list[Losses] = []
        rows = 0
        while run.probes:
            probes = run.probes
            taken = self._taken(batch, info, probes)
            perturbed = partial(self._perturbed, taken, self.layout.tensors(info.blocks))
            scores: Float32 | None = None
            if not objective.has_answers:
                params = perturbed(probes, directions)
                scores = self._engine.score(taken, params, **self._places(info.blocks, probes))
            each = partial(_of_each, perturbed, probes, directions)
            probed = Probed(taken, scores, each, probes[0].seed)
            losses = record_losses(objective.losses(probed), probes)
            rounds.append(losses)
            rows += len(probes) * taken.num_rows
            run.send(losses)
        return np.concatenate(rounds), run.terms, rows

    def _taken(self, batch: Batch, info: StepInfo, probes: list[Probe]) -> Batch:
        """The examples of probes: those of the step, or further ones."""
        number = probes[0].batch
        return batch if not number else self._further.batch(info.step * _MOST_FURTHER + number)

    def losses(
        self,
        batch: Batch,
        blocks: tuple[int, ...],
        probes: Sequence[Probe],
        directions: StepDirections,
        tensors: Mapping[str, int] | None = None,
    ) -> Losses:
        """The loss of every example at every probe, (probes, B).

        Args:
            batch: the examples.
            blocks: blocks whose tensors are perturbed.
            probes: the probes.
            directions: directions of the tensors.
            tensors: perturbed tensors, with the block of each; None for those that gradients are
                estimated for.
        """
        perturbed = self.layout.tensors(blocks) if tensors is None else tensors
        params = self._perturbed(batch, perturbed, probes, directions)
        scores = self._engine.score(batch, params, **self._places(blocks, probes))
        return example_losses(batch, scores)

    def _places(
        self, blocks: tuple[int, ...], probes: Sequence[Probe], cache: Cache | None = None
    ) -> Places:
        """How the probes of a pass differ, and where its cached states enter."""
        cache = self.cache if cache is None else cache
        return Places(
            code=code_matrices([probe.scale for probe in probes]),
            first_active=_firsts(probes, min(blocks)),
            cache=cache,
            cache_block=self.layout.first if cache is not None else 0,
            scope=self.scope,
        )

    def _perturbed(
        self,
        batch: Batch,
        tensors: Mapping[str, int],
        probes: Sequence[Probe],
        directions: StepDirections,
    ) -> PerturbedParams:
        noise = self.layout.config.noise
        return PerturbedParams(
            directions.theta, tensors, directions, probes, batch.row_example, noise
        )

    def make_cache(
        self,
        path: Path | None,
        max_bytes: int | None = None,
        *,
        examples: ExampleSet | None = None,
    ) -> Cache | None:
        """Make the cache of the run; None if all blocks train on whole prompts.

        Args:
            path: file of the cache, made new; None makes a cache that stores nothing.
            max_bytes: largest size of the file; None for no limit.
            examples: whose states are cached; None for the examples of the run.
        """
        entry = self.layout.first
        examples = self._examples if examples is None else examples
        lengths = examples.sequence_lengths()
        width = self._engine.bundle.manifest.model.hidden_size
        graphs = self._engine.bundle.manifest.graphs
        if self.scope == "answer" and graphs.continues and examples.kind == "labels":
            layout = KeyValueLayout.of(graphs, entry)
            return AnswerCache(path, lengths, width, layout, max_bytes)
        return PrefixCache(path, lengths, width, max_bytes) if entry > 0 else None

    # --- memory ---

    def grant(self, estimator: Estimator, budget_bytes: int, longest: int) -> int:
        """Bytes for keys and values of generated texts within a budget; 0 if none are generated.

        Args:
            estimator: estimates the gradient.
            budget_bytes: budget of the process.
            longest: tokens of the longest row that is evaluated.
        """
        if not self.objective.has_answers:
            return 0
        manifest, probes = self._engine.bundle.manifest, self.first_probes(estimator)
        shapes = [info.shape for info in manifest.trainables if info.name in self.layout.trained]
        copy = sum(4 * math.prod(shape) for shape in shapes)
        size, room = self.batches.batch_size, manifest.model.max_seq
        longest = min(longest, room - self.layout.config.max_new_tokens)
        return self.objective.cache_memory(
            budget_bytes, size, longest, copy, private=probes[0].private
        )

    def first_probes(self, estimator: Estimator) -> list[Probe]:
        """The first probes of an estimator."""
        return next(estimator(self.layout.info(0, tuple(self.layout.blocks), 0.0)))

    def takes_further(self, estimator: Estimator) -> bool:
        """Does an estimator evaluate further batches besides that of the step?"""
        return bool(self.layout.blocks) and any(
            probe.batch for probe in self.first_probes(estimator)
        )

    def rehearse(
        self,
        estimator: Estimator,
        state: TrainingState,
        others: Sequence[ExampleSet] = (),
        eval_batch_size: int = 32,
        *,
        rows: ExampleSet | None = None,
        max_rows: int | None = None,
        alone: bool = False,
        part: RehearsedPart = "all",
        more: Callable[[Batch, Cache | None], None] | None = None,
    ) -> None:
        """Run a step and an evaluation on heavy rows, in one block of each kind.

        The planner measures the memory meanwhile; the results are discarded.

        Args:
            estimator: estimates the gradient.
            state: only read.
            others: rows for evaluation.
            eval_batch_size: examples per pass of an evaluation.
            rows: the examples of the step; None for the heaviest of the run.
            max_rows: number of sequences per pass above which a pass takes no more memory; None
                for no such number.
            alone: compute one chunk at a time, as one worker of several does.
            part: leave out the other parts.
            more: runs the other passes of a step, on a batch with a cache; None for none.
        """

        def heavy(examples: ExampleSet, size: int) -> Batch:
            if max_rows is not None:
                size = min(size, -(-max_rows // examples.sequences_per_example))
            return make_batch(examples, heaviest(examples, size))

        if rows is None:
            rows = self._examples
            batch = heavy(rows, self.batches.batch_size)
        else:
            batch = make_batch(rows, range(len(rows)))
        steps, losses = part != "evaluations", part in ("all", "losses")
        probes = self.first_probes(estimator) if self.layout.blocks else []
        cached = self.layout.config.prefix_cache
        cache = self.make_cache(None, examples=rows) if cached else None
        params = SharedParams(state.theta)
        with self._engine.sampling(self._engine.model.kinds, alone=alone):
            for examples in others if part in ("all", "evaluations") else ():
                self._engine.score(heavy(examples, eval_batch_size), params, scope=self.scope)
            # The second finds cached prompts, and the arena of the first.
            for _ in range(2 if steps else 0):
                if not losses:
                    pass
                elif probes:
                    directions = StepDirections(state)
                    blocks = tuple(self.layout.blocks)
                    perturbed = self._perturbed(batch, self.layout.trained, probes, directions)
                    self._engine.score(batch, perturbed, **self._places(blocks, probes, cache))
                else:  # the losses by which the learning rate is measured
                    self._engine.score(batch, params, scope=self.scope)
                if losses:
                    self.objective.rehearse(params)
                if self._first_order is not None and part != "losses":
                    self._first_order.gradient(
                        batch, state.theta, self.scope, cache, self.layout.first
                    )
                if more is not None:
                    more(batch, cache)


def _firsts(probes: Sequence[Probe], first: int) -> int | tuple[int, ...]:
    """The first perturbed block of each probe; one number if it is the same for all."""
    if all(probe.blocks is None for probe in probes):
        return first
    return tuple(min(probe.blocks, default=first) if probe.blocks else first for probe in probes)


def _of_each(
    perturbed: Callable[[Sequence[Probe], StepDirections], PerturbedParams],
    probes: Sequence[Probe],
    directions: StepDirections,
) -> list[PerturbedParams]:
    """The trainable inputs of each probe by itself, as generated answers need them."""
    return [perturbed([probe], directions) for probe in probes]
