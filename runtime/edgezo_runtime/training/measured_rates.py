"""The rates of a run whose configuration leaves them to measurement."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import DivergedError, UsageError
from edgezo_runtime.methods.catalogue import assemble
from edgezo_runtime.methods.estimators import Probe, Term
from edgezo_runtime.methods.method import Parts
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.methods.samplers import Frame
from edgezo_runtime.noise import derive_seed
from edgezo_runtime.training.calibrate import (
    FIRST_ORDER_NATS,
    STEADY_NATS,
    STEP_NATS,
    Losses,
    Scale,
    find_first_order_rate,
    find_rate,
    find_scale,
    find_wide_scale,
)
from edgezo_runtime.training.first_order_blocks import FirstOrderBlocks
from edgezo_runtime.training.probe_evaluator import ProbeEvaluator
from edgezo_runtime.training.training_state import StepDirections, TrainingState

PROBED_EXAMPLES = 32
"""Examples of the first batch that the perturbation scale is found on."""

PROBED_WIDE = 8
"""The same where a score is descended: the scale is wide, and need not be exact."""

PROBED_DIRECTIONS, PROBED_STEPS = 16, 16
"""So many projected gradients are looked at, of so many steps at most, without taking the steps."""


PROBED_SCORES = 4
"""Steps of them whose scores are looked at, where a score is descended."""


def measure_rates(
    probe_evaluator: ProbeEvaluator,
    state: TrainingState,
    config: TuneConfig,
    rates: Rates,
    first_order: FirstOrderBlocks | None = None,
) -> Rates:
    """Fill in what "auto" stands for.

    Args:
        probe_evaluator: evaluates losses.
        state: where the run begins; only read.
        config: which of the two rates is measured.
        rates: those that are not.
        first_order: what takes first-order steps.

    Raises:
        DivergedError: the losses are not finite where nothing is perturbed.
        UsageError: the losses do not answer to the trainables.
    """
    words: list[str] = []
    if first_order is not None and config.first_order_lr == "auto":
        scale = _find_scale(probe_evaluator, state, first_order.layout.tensors, private=False)
        rates = dataclasses.replace(rates, first_order_lr=find_first_order_rate(scale))
        words.append(
            f"lr {rates.first_order_lr:.3g} of first-order steps: along random signs it changes "
            f"the loss of a row by {FIRST_ORDER_NATS:g} nats"
        )
    if not probe_evaluator.layout.blocks:
        return dataclasses.replace(rates, words="; ".join(words))
    if config.eps == "auto":
        wide = config.objective != "loss"
        scale = _find_scale(probe_evaluator, state, probe_evaluator.layout.trained, wide=wide)
        rates = dataclasses.replace(rates, eps=scale.eps)
        words.append(_wide_words(scale) if wide else _scale_words(scale))
    if config.lr == "auto":
        lr = _find_rate(probe_evaluator, state, config, assemble(config, rates.eps))
        rates = dataclasses.replace(rates, lr=lr)
        words.append(f"lr {lr:.3g}: a step moves the trainables as far as their noise allows")
    return dataclasses.replace(rates, words="; ".join([*words, rates.words]).strip("; "))


def _scale_words(scale: Scale) -> str:
    return (
        f"eps {scale.eps:g}: it moves the loss of a row by {scale.signal:.2g} nats, "
        f"{_rounded(scale.ratio)} times what rounding does"
    )


def _wide_words(scale: Scale) -> str:
    return (
        f"eps {scale.eps:g}: it moves the loss of a row by {scale.signal:.2g} nats, so that the "
        f"model begins to say other things"
    )


def _rounded(value: float) -> str:
    """Two digits, without an exponent."""
    if value < 10:
        return f"{value:.1f}"
    unit = 10 ** (math.floor(math.log10(value)) - 1)
    return f"{round(value / unit) * unit:,}"


class _DenseDirections(StepDirections):
    """Directions of every coordinate, whatever the method's sampler makes of them."""

    def frame(self, name: str) -> Frame:
        """All coordinates of a tensor."""
        return Frame(self.theta[name].shape)


def _find_scale(
    probe_evaluator: ProbeEvaluator,
    state: TrainingState,
    tensors: Mapping[str, int],
    *,
    private: bool = True,
    wide: bool = False,
) -> Scale:
    """Of these tensors, with the block of each; along one direction or one an example."""
    batch = probe_evaluator.batches.part(0, PROBED_WIDE if wide else PROBED_EXAMPLES)
    directions = _DenseDirections(state)
    blocks = tuple(sorted(set(tensors.values())))
    seed = derive_seed(state.seed, "calibrate")

    def evaluate(scales: Sequence[float]) -> Losses:
        probes = [Probe(seed, scale, private=private) for scale in scales]
        losses = probe_evaluator.losses(batch, blocks, probes, directions, tensors)
        if not np.isfinite(losses[0]).all():
            raise DivergedError(
                "the losses of the model as it was exported are not finite; is it a damaged one?"
            )
        return losses

    return find_wide_scale(evaluate) if wide else find_scale(evaluate)


def _find_rate(
    probe_evaluator: ProbeEvaluator,
    state: TrainingState,
    config: TuneConfig,
    parts: Parts,
) -> float:
    """The learning rate from the first steps' estimates.

    A score has units of its own and hardly a slope where the run begins. How far a step may go is
    therefore read off the loss, whatever is descended; a few estimates of the score say at which
    rate that is reached, unless they are divided by their own size anyway.
    """
    normalizer = state.normalizer
    units = config.objective != "loss" and not (normalizer and normalizer.divide)
    shaping = normalizer.init() if normalizer else (0.0, 0.0)
    true: list[float] = []
    applied: list[float] = []
    seen = 0
    for step in range(PROBED_STEPS):
        if seen >= PROBED_DIRECTIONS:
            break
        info = probe_evaluator.layout.info(step, probe_evaluator.layout.active(step), 0.0)
        batch = probe_evaluator.batches.batch(step)
        _, terms, _ = probe_evaluator.estimate(parts.estimator, info, batch, state, on_loss=True)
        seen += sum(len(term.coeff) for term in terms)
        true.append(_mean_square(state, [_unscaled(term) for term in terms], info.blocks))
        if units and step >= PROBED_SCORES:
            continue
        if units:
            _, terms, _ = probe_evaluator.estimate(parts.estimator, info, batch, state)
        if normalizer:
            terms, shaping = normalizer.apply(terms, shaping)
        applied.append(_mean_square(state, terms, info.blocks))
    nats = STEADY_NATS if config.lr_schedule == "constant" else STEP_NATS
    lr = find_rate(_rms(true), _rms(applied), parts.rule, nats)
    if not math.isfinite(lr):
        raise UsageError(
            "--lr auto: the gradient estimates of the first steps are zero; give --lr a number"
            + (", or a larger --eps" if units else "")
        )
    return float(np.float32(lr))


def _rms(squares: Sequence[float]) -> float:
    """Over the steps with any signal: around an anchor at theta itself there is none."""
    seen = [value for value in squares if value]
    return math.sqrt(sum(seen) / len(seen)) if seen else 0.0


def _unscaled(term: Term) -> Term:
    """In units of the gradient."""
    return dataclasses.replace(term, coeff=tuple(value / term.gain for value in term.coeff))


def _mean_square(state: TrainingState, terms: list[Term], blocks: Sequence[int]) -> float:
    """Of the elements of an estimate, over all active tensors."""
    total, count = 0.0, 0
    for g in state.gradients(terms, blocks):
        total += float(np.square(g, dtype=np.float64).sum())
        count += g.size
    return total / count
