"""A run in miniature: the parts of a method on a quadratic loss, with no model and no files.

Estimator, sampler, rule, normalization and perturbed copies are those of a real run; only the
losses are made up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.engine.perturbed import PerturbedParams
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.methods.block_schedules import parse_schedule
from edgezo_runtime.methods.catalogue import assemble
from edgezo_runtime.methods.config_check import check_config
from edgezo_runtime.methods.estimators import Probe, StepInfo, Term, record_losses
from edgezo_runtime.methods.method import Parts
from edgezo_runtime.methods.rules import Rule
from edgezo_runtime.noise import derive_seed
from edgezo_runtime.training.step_directions import StepDirections
from edgezo_runtime.training.training_state import TrainingState
from tests.estimator_runs import run_estimator

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# Two matrices above rank 2, a vector that can be one, and one that cannot; a block each.
SHAPES = {"0.a": (4, 3), "1.b": (12,), "2.c": (3, 5), "3.d": (5,)}
BLOCKS = {name: int(name[0]) for name in SHAPES}
SIZES = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
DIMS, BATCH = sum(SIZES.values()), 4

Evaluate = Callable[[list[Probe], PerturbedParams, StepDirections], Float64]


def split(x: Float64) -> dict[str, Float64]:
    """The parts of a vector of all coordinates (DIMS,) by tensor."""
    ends = np.cumsum(list(SIZES.values()))[:-1]
    parts = np.split(x, ends)
    return {name: part.reshape(SHAPES[name]) for name, part in zip(SHAPES, parts, strict=True)}


def joined(values: dict[str, Any]) -> Float64:
    """All coordinates of tensors, (DIMS,)."""
    return np.concatenate([np.asarray(values[name], np.float64).reshape(-1) for name in SHAPES])


@dataclass(frozen=True, slots=True, eq=False)
class Quadratic:
    """l_b(x) = (x - c_b)' H (x - c_b) / 2 with centres c_b around one; least loss close to 0.

    Attributes:
        curvature: the diagonal of H, (DIMS,).
        centre: mean of the centres over all batches, (DIMS,).
        jitter: standard deviation of the examples' centres around it.
    """

    curvature: Float64
    centre: Float64
    jitter: float

    def centres(self, batch: int) -> Float64:
        """Of every example of a batch, (BATCH, DIMS)."""
        noise = np.random.default_rng([7, batch]).normal(size=(BATCH, DIMS))
        return self.centre + self.jitter * noise

    def losses(self, x: Float64, batch: int = 0) -> Float64:
        """Of every example, (BATCH,), at (BATCH or 1, DIMS)."""
        return np.asarray((self.curvature * (x - self.centres(batch)) ** 2).sum(axis=1) / 2)

    def gradient(self, x: Float64, batch: int = 0) -> Float64:
        """Of the mean loss at (DIMS,)."""
        return np.asarray(self.curvature * (x - self.centres(batch).mean(axis=0)))


def start(seed: int = 0) -> dict[str, Float32]:
    """Trainables before the first step; no two have the same magnitude."""
    x = np.random.default_rng([1, seed]).normal(size=DIMS)
    return {name: part.astype(np.float32) for name, part in split(x).items()}


class QuadraticRun:
    """Steps of a method.

    Args:
        config: the method with numbers for lr and eps; every step has this lr.
        target: the loss.
        initial: trainables to begin with; copied.
        rule: in place of the method's own.
    """

    def __init__(
        self,
        config: TuneConfig,
        target: Quadratic,
        initial: dict[str, Float32] | None = None,
        rule: Rule | None = None,
    ) -> None:
        check_config(config)
        assert not isinstance(config.lr, str)
        assert not isinstance(config.eps, str)
        self.config, self.target, self.lr = config, target, float(np.float32(config.lr))
        self.parts: Parts = assemble(config, config.eps)
        if rule is not None:
            self.parts = dataclasses.replace(self.parts, rule=rule)
        given = start() if initial is None else initial
        copied = {name: value.copy() for name, value in given.items()}
        self.state = TrainingState(copied, BLOCKS, config, self.parts)
        self._schedule = parse_schedule(config.schedule)

    @property
    def x(self) -> Float64:
        """Theta, (DIMS,)."""
        return joined(self.state.theta)

    def info(self) -> StepInfo:
        """What the estimator is told of the step to come; an epoch has two steps."""
        step, seed = self.state.step, self.config.seed
        return StepInfo(
            seed=derive_seed(seed, "step", step),
            batch_size=BATCH,
            step=step,
            lr=self.lr,
            epoch=step // 2,
            blocks=self._schedule(step, seed, list(BLOCKS.values())),
        )

    def losses(
        self, probes: list[Probe], params: PerturbedParams, directions: StepDirections
    ) -> Float64:
        """(len(probes), BATCH), each example at its own copy of theta."""
        x = np.concatenate([copies(params, name, len(probes)) for name in SHAPES], axis=2)
        batch = probes[0].batch
        return np.stack([self.target.losses(own.astype(np.float64), batch) for own in x])

    def estimate(
        self, info: StepInfo, evaluate: Evaluate | None = None
    ) -> tuple[Float64, list[Term]]:
        """What a step finds: its recorded losses, pass after pass, and the terms of g."""
        active = {name: block for name, block in BLOCKS.items() if block in info.blocks}
        directions = StepDirections(self.state)
        rounds: list[Float64] = []

        def ask_target(probes: list[Probe]) -> Float64:
            params = PerturbedParams(
                self.state.theta,
                active,
                directions,
                probes,
                np.arange(BATCH),
                self.config.noise,
            )
            losses = record_losses((evaluate or self.losses)(probes, params, directions), probes)
            rounds.append(losses)
            return losses

        terms = run_estimator(self.parts.estimator, info, ask_target)
        return np.concatenate(rounds), terms

    def gradient(self, info: StepInfo, terms: Sequence[Term]) -> Float64:
        """The estimate that terms stand for, before any rule, (DIMS,)."""
        found = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
        for name, block in BLOCKS.items():
            own = [term for term in terms if term.concerns(block)]
            if block in info.blocks:
                frame = self.state.frame(name)
                found[name] = frame.gradient(own, name, self.config.noise)
        return joined(found)

    def record(self, info: StepInfo, losses: Float64) -> StepRecord:
        """What the journal would keep of a step."""
        return StepRecord(info.step, info.seed, info.lr, info.blocks, losses)

    def step(self, evaluate: Evaluate | None = None) -> StepRecord:
        """Evaluate and apply."""
        info = self.info()
        losses, terms = self.estimate(info, evaluate)
        record = self.record(info, losses)
        self.state.apply(record, terms)
        return record

    def bits(self) -> dict[str, bytes]:
        """All that a run goes on from."""
        snapshot = self.state.snapshot("")
        found = {name: value.tobytes() for name, value in snapshot.theta.items()}
        for name, slot in snapshot.slots.items():
            found |= {f"{name} {part}": value.tobytes() for part, value in (slot or {}).items()}
        counters = np.array([self.state.step, *self.state.norm_state])
        return found | {"counters": counters.tobytes()}


def copies(params: PerturbedParams, name: str, groups: int) -> Float32:
    """A tensor as every example sees it at every probe, (groups, BATCH, size)."""
    made = params.copies(name, np.arange(BATCH))
    assert len(made) in (1, groups, groups * BATCH)
    if len(made) == 1:
        made = np.broadcast_to(made, (groups, *made.shape[1:]))
    own = made.reshape(groups, -1, SIZES[name])
    return np.broadcast_to(own, (groups, BATCH, SIZES[name]))
