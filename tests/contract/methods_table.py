"""One row per method: the mean of its estimate, and rates with which it reduces a loss.

Every test of the contract runs over this table, so a new method needs a row and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.methods.block_schedules import parse_schedule
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.methods.estimators import StepInfo
from tests.contract.quadratic_run import (
    BATCH,
    BLOCKS,
    SHAPES,
    Float64,
    QuadraticRun,
    joined,
)

Expected = Callable[[QuadraticRun, StepInfo], Float64]
Unit = Callable[[Float64, float], float]

EPS = 1e-3


def _exact(run: QuadraticRun, info: StepInfo) -> Float64:
    """Not biased: the gradient of the batch."""
    return run.target.gradient(run.x)


def _masked(run: QuadraticRun, info: StepInfo) -> Float64:
    """The gradient where the mask is 1, else zero; in mean over random masks, a share."""
    options, mask = run.config.options, {}
    sparsity = 0.75 if options.sparsity is None else options.sparsity
    for name, theta in run.state.theta.items():
        moving = np.ceil((1 - sparsity) * theta.size)
        rank = np.abs(theta).reshape(-1).argsort().argsort()
        if options.mask == "large":
            rank = theta.size - 1 - rank
        mask[name] = moving / theta.size if options.mask == "random" else rank < moving
        mask[name] = np.broadcast_to(mask[name], theta.size)
    return joined(mask) * _exact(run, info)


def _preconditioned(run: QuadraticRun, info: StepInfo) -> Float64:
    """H^-1 times the gradient."""
    slots = run.state.sampler_slots
    return _exact(run, info) / joined({name: slots[name]["curvature"] for name in SHAPES})


def _some_curvature(run: QuadraticRun) -> None:
    """H of a run under way, from 1/3 to 3."""
    for index, slot in enumerate(run.state.sampler_slots.values()):
        shape = slot["curvature"].shape
        logs = np.random.default_rng([2, index]).uniform(-1, 1, shape)
        slot["curvature"][...] = 3**logs


def _share(run: QuadraticRun, info: StepInfo) -> Float64:
    """The gradient times the share of the blocks that are active."""
    active = parse_schedule(run.config.schedule)(0, 0, list(BLOCKS.values()))
    return _exact(run, info) * len(active) / len(BLOCKS)


def _anchor_or_difference(run: QuadraticRun, info: StepInfo) -> Float64:
    """At an anchor the gradient of the further batches, else that here less that at the anchor."""
    if info.step % (run.config.options.anchor_every or 2) == 0:
        batches = run.config.options.anchor_batches or 8
        return np.mean([run.target.gradient(run.x, 1 + j) for j in range(batches)], axis=0)
    anchor = joined({name: run.state.slots[name]["anchor"] for name in SHAPES})
    return _exact(run, info) - run.target.gradient(anchor)


def _one_step(run: QuadraticRun) -> None:
    """Past the anchor; the anchor is put apart from theta, or the difference were all noise."""
    run.step()
    for slot in run.state.slots.values():
        slot["anchor"] -= 1


def _spread_of_directions(losses: Float64, eps: float) -> float:
    """FZOO divides by the standard deviation of its losses, and not by eps."""
    return float(losses[1:, 0].std(ddof=1)) / eps


def _spread_of_examples(losses: Float64, eps: float) -> float:
    """GRZO divides by the standard deviation of the differences."""
    return float((losses[0] - losses[1]).std()) + 1e-8


@dataclass(frozen=True, slots=True)
class Row:
    """The contract of a method.

    Attributes:
        lr: on the targets of `test_descent`, whose curvature is up to 3.
        steps: after which the loss is below the bounds of the targets.
        mean: mean of an estimate; None where losses decide its sign, see
            `test_method_algebra`.
        unit: what an estimate has to be multiplied with before, made of its losses: the scale of
            a method that steps in units of a spread.
        prepare: brings a run to where the mean is taken.
        settings: short intervals, small counts.
    """

    lr: float
    steps: int = 300
    mean: Expected | None = _exact
    unit: Unit = lambda losses, eps: 1.0
    prepare: Callable[[QuadraticRun], None] = lambda run: None
    settings: Mapping[str, object] = field(default_factory=dict)


_LOW_RANK: Mapping[str, object] = {"subspace_rank": 2, "refresh": 3}

TABLE: dict[str, Row] = {
    "auto": Row(lr=0.04),
    "zo-sgd": Row(lr=0.02),
    "zo-sgd-one-sided": Row(lr=0.02),
    "n-spsa": Row(lr=0.05, settings={"num_directions": 3}),
    "zo-sgd-sign": Row(lr=0.04, steps=400),
    "zo-sgd-mmt": Row(lr=0.002),
    "zo-sgd-cons": Row(lr=0.02, mean=None),
    "zo-adam": Row(lr=0.05),
    "forward-grad": Row(lr=0.02),
    "block-wise": Row(lr=0.04),
    "sparse": Row(lr=0.05, steps=400, mean=_masked),
    "subzero": Row(lr=0.015, settings=_LOW_RANK),
    "lozo": Row(lr=0.015, settings=_LOW_RANK),
    "lozo-m": Row(lr=0.015, steps=800, settings=_LOW_RANK),
    "lezo": Row(lr=0.06, mean=_share),
    "helene": Row(lr=0.02, steps=900, settings={"hessian_every": 1}),
    "adazeta": Row(lr=0.03, settings={"num_directions": 3}),
    "mezo-svrg": Row(
        lr=0.0025,
        steps=400,
        mean=_anchor_or_difference,
        prepare=_one_step,
        settings={"anchor_batches": 2},
    ),
    "hizoo": Row(
        lr=0.06, mean=_preconditioned, prepare=_some_curvature, settings={"smoothing": 1e-3}
    ),
    "fzoo": Row(lr=0.03, unit=_spread_of_directions),
    # its steps are in units of 1 / (2 eps)
    "grzo": Row(lr=0.06 * EPS, unit=_spread_of_examples),
    "rloo": Row(lr=0.05, settings={"num_directions": 4}),
    "qzo": Row(lr=0.02),
}


def config_of(method: str, **given: object) -> TuneConfig:
    """A method's configuration with the table's rates; `given` come first."""
    row = TABLE[method]
    settings = {"lr": row.lr, "eps": EPS, "batch_size": BATCH, **row.settings, **given}
    return method_config(method, **settings)
