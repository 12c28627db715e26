"""Losses at probes: which rows, which blocks, which directions, and what is kept between passes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_runtime.data.batches import Batch, Batches, SequentialBatches
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.questions import QuestionSet
from edgezo_runtime.data.scope import choose_scope
from edgezo_runtime.engine.answer_states import KeyValueLayout
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.engine.pair_coding import code_matrices
from edgezo_runtime.engine.perturbed import PerturbedParams
from edgezo_runtime.engine.prefix_cache import AnswerCache, PrefixCache
from edgezo_runtime.evaluation.objectives import Probed, Reward, choose_objective
from edgezo_runtime.methods.estimators import (
    Estimator,
    Losses,
    Probe,
    StepInfo,
    Term,
    ask,
    record_losses,
)
from edgezo_runtime.noise import derive_seed
from edgezo_runtime.training.first_order_blocks import FirstOrderBlocks
from edgezo_runtime.training.layout import RunLayout
from edgezo_runtime.training.training_state import StepDirections, TrainingState

Float32 = npt.NDArray[np.float32]
Cache = PrefixCache | AnswerCache


Judge = Callable[[Batch, tuple[int, ...], Sequence[Probe], StepDirections], Losses]
"""A number for every example at every probe of a batch, (probes, B)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The examples as questions, where answers are written.

    Attributes:
        questions: in the order of the examples.
        reward: the user's judge of the answers.
    """

    questions: QuestionSet | None = None
    reward: Reward | None = None


_MOST_FURTHER = 2**16
"""Further batches that a step may ask for."""


class ProbeEvaluator:
    """Evaluates what an estimator asks for.

    Args:
        engine: runs the bundle.
        examples: training data.
        layout: what trains.
        first_order: gradients of the last blocks, where they take first-order steps.
        asked: the examples as questions, and who judges the answers.

    Attributes:
        layout: likewise.
        objective: what is descended.
        scope: tokens the adapters act on.
        batches: the order of the data.
        cache: what is kept between passes; None for nothing.

    Raises:
        UsageError: the scope does not go with the bundle.
    """

    def __init__(
        self,
        engine: Engine,
        examples: ExampleSet,
        layout: RunLayout,
        first_order: FirstOrderBlocks | None = None,
        asked: Asked | None = None,
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
        asked = asked or Asked()
        self.objective = choose_objective(
            config, engine, examples, asked.questions, self.scope, asked.reward
        )

    @property
    def num_examples(self) -> int:
        """Examples that steps are taken on."""
        return len(self._examples)

    def grow(self, examples: ExampleSet, step: int) -> None:
        """Go on with more examples from a step on; what is kept of the others stays."""
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
        judge: Judge | None = None,
    ) -> tuple[Losses, list[Term], int]:
        """Ask an estimator and evaluate what it asks.

        Args:
            estimator: of the gradient.
            info: the step.
            batch: the step's.
            state: before the step; only read.
            judge: gives what is descended; None for what the run descends.

        Returns:
            The losses of all probes one under the other, the terms of the gradient, and the rows
            evaluated.

        Raises:
            DivergedError: a loss is not finite.
            MemoryError: memory was refused.
            BudgetStopError: it is short.
        """
        directions = StepDirections(state)
        rounds: list[Losses] = []
        rows = 0

        def evaluate(probes: list[Probe]) -> Losses:
            nonlocal rows
            taken = self._taken(batch, info, probes)
            found = (judge or self.objective_losses)(taken, info.blocks, probes, directions)
            losses = record_losses(found, probes)
            rounds.append(losses)
            rows += len(probes) * taken.num_rows
            return losses

        terms = ask(estimator, info, evaluate)
        return np.concatenate(rounds), terms, rows

    def objective_losses(
        self,
        batch: Batch,
        blocks: tuple[int, ...],
        probes: Sequence[Probe],
        directions: StepDirections,
    ) -> Losses:
        """What the run descends, of every example at every probe, (probes, B)."""
        tensors = self.layout.tensors(blocks)
        scores = partial(self._scores, batch, tensors, blocks, probes, directions, self.cache)

        def params() -> list[PerturbedParams]:
            return [self._perturbed(batch, tensors, [probe], directions) for probe in probes]

        return self.objective.losses(Probed(batch, scores, params, probes[0].seed))

    def _taken(self, batch: Batch, info: StepInfo, probes: list[Probe]) -> Batch:
        """The examples that probes ask for: the step's, or further ones."""
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
            blocks: those whose tensors are perturbed.
            probes: where.
            directions: of the tensors.
            tensors: in place of those that estimates are for, with the block of each.
        """
        perturbed = self.layout.tensors(blocks) if tensors is None else tensors
        scores = self._scores(batch, perturbed, blocks, probes, directions, self.cache)
        return example_losses(batch, scores)

    def _scores(
        self,
        batch: Batch,
        tensors: Mapping[str, int],
        blocks: tuple[int, ...],
        probes: Sequence[Probe],
        directions: StepDirections,
        cache: Cache | None,
    ) -> Float32:
        params = self._perturbed(batch, tensors, probes, directions)
        return self._engine.score(
            batch,
            params,
            code_matrices([probe.scale for probe in probes]),
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

    def make_cache(self, path: Path | None, max_bytes: int | None = None) -> Cache | None:
        """The cache that suits the run: nothing where all blocks train on whole prompts.

        Args:
            path: its file, made new; None forgets the numbers.
            max_bytes: no more than so much of the file is used.
        """
        entry = self.layout.first
        lengths = self._examples.sequence_lengths()
        width = self._engine.bundle.manifest.model.hidden_size
        graphs = self._engine.bundle.manifest.graphs
        if self.scope == "answer" and graphs.continues and self._examples.kind == "labels":
            layout = KeyValueLayout.of(graphs, entry)
            return AnswerCache(path, lengths, width, layout, max_bytes)
        return PrefixCache(path, lengths, width, max_bytes) if entry > 0 else None

    # --- what a step takes ---

    def grant(self, estimator: Estimator, budget_bytes: int, longest: int) -> int:
        """Bytes for keys and values of texts within a budget; 0 where none are written.

        Args:
            estimator: of the gradient.
            budget_bytes: of the process.
            longest: tokens of the longest row that is evaluated on.
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
        """What an estimator asks for first."""
        return next(estimator(self.layout.info(0, tuple(self.layout.blocks), 0.0)))

    def rehearse(
        self,
        estimator: Estimator,
        state: TrainingState,
        others: Sequence[ExampleSet] = (),
        eval_batch_size: int = 32,
        *,
        max_rows: int | None = None,
    ) -> None:
        """Do what a step and an evaluation do, on the longest rows, in one block of each kind.

        For what it takes; nothing comes of it.

        Args:
            estimator: of the gradient.
            state: only read.
            others: what is evaluated on besides the training data.
            eval_batch_size: examples a pass in evaluations.
            max_rows: sequences of a pass, where so many take as much as any number; None for all.
        """

        def longest(examples: ExampleSet, size: int) -> Batch:
            if max_rows is not None:
                size = min(size, -(-max_rows // examples.sequences_per_example))
            return next(iter(SequentialBatches(examples, size)))

        batch = longest(self._examples, self.batches.batch_size)
        probes = self.first_probes(estimator) if self.layout.blocks else []
        cache = self.make_cache(None) if self.layout.config.prefix_cache else None
        params = SharedParams(state.theta)
        with self._engine.sampling(self._engine.model.kinds):
            for examples in others:
                self._engine.score(longest(examples, eval_batch_size), params, scope=self.scope)
            for _ in range(2):  # the second finds prompts, and an arena as the first one left it
                if probes:
                    directions = StepDirections(state)
                    blocks = tuple(self.layout.blocks)
                    self._scores(batch, self.layout.trained, blocks, probes, directions, cache)
                self.objective.rehearse(params)
                if self._first_order is not None:
                    self._first_order.gradient(
                        batch, state.theta, self.scope, cache, self.layout.first
                    )


def _firsts(probes: Sequence[Probe], first: int) -> int | tuple[int, ...]:
    """The block each probe is perturbed from; one number where it is the same for all."""
    if all(probe.blocks is None for probe in probes):
        return first
    return tuple(min(probe.blocks, default=first) if probe.blocks else first for probe in probes)
