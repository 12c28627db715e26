"""Measures the rates that a configuration leaves to "auto"."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

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
    MOST_SCALES,
    STEADY_NATS,
    STEP_NATS,
    Losses,
    Scale,
    find_first_order_rate,
    find_rate,
    find_scale,
    find_wide_scale,
)
from edgezo_runtime.training.carried_layout import CARRIED_SHARE
from edgezo_runtime.training.feedback_layout import FEEDBACK_EPS, FEEDBACK_LR
from edgezo_runtime.training.first_order_blocks import FirstOrderBlocks
from edgezo_runtime.training.probe_evaluator import ProbeEvaluator
from edgezo_runtime.training.step_directions import StepDirections
from edgezo_runtime.training.training_state import TrainingState

Tell = Callable[[str, int, int], None]

PROBED_EXAMPLES = 32
"""Examples of the first batch that the perturbation scale is measured on."""

PROBED_WIDE = 8
"""The same for a run that optimizes a score: its scale is wide and need not be exact."""

PROBED_DIRECTIONS, PROBED_STEPS = 16, 16
"""Projected gradients that the learning rate is measured on, and most steps that they come from.

The steps are evaluated but not taken.
"""

PROBED_SCORES = 4
"""Steps among these whose scores are evaluated, in a run that optimizes a score."""


def measure_rates(
    probe_evaluator: ProbeEvaluator,
    state: TrainingState,
    config: TuneConfig,
    rates: Rates,
    first_order: FirstOrderBlocks | None = None,
    tell: Tell = lambda part, done, most: None,
) -> Rates:
    """Measure the rates that are "auto".

    Args:
        probe_evaluator: evaluates losses.
        state: state before the first step; only read.
        config: says which rates are measured.
        rates: the rates that are given or published.
        first_order: the blocks that take first-order steps; None if there are none.
        tell: given the name of a measurement, its passes so far, and how many there are at most.

    Raises:
        DivergedError: the losses of the unperturbed model are not finite.
        UsageError: the losses do not depend on the trainables.
    """
    words: list[str] = []
    if probe_evaluator.layout.carried is not None and config.lr != "auto":
        return dataclasses.replace(rates, first_order_lr=rates.lr)
    if first_order is not None and config.first_order_lr == "auto":
        scale = _find_scale(
            probe_evaluator, state, first_order.layout.tensors, private=False,
            tell=partial(tell, "measuring the learning rate"),
        )  # fmt: skip
        found = find_first_order_rate(scale)
        share = ""
        if probe_evaluator.layout.carried is not None:
            found *= CARRIED_SHARE
            share = f"{CARRIED_SHARE:g} of that by which "
        rates = dataclasses.replace(rates, first_order_lr=found)
        words.append(
            f"first-order lr {rates.first_order_lr:.3g} ({share}a step in a random direction "
            f"changes the loss of a row by {FIRST_ORDER_NATS:g} nats)"
        )
    if probe_evaluator.layout.feedback is not None:
        lr = FEEDBACK_LR if config.lr == "auto" else rates.lr
        eps = FEEDBACK_EPS if config.eps == "auto" else rates.eps
        return dataclasses.replace(rates, lr=lr, eps=eps, first_order_lr=lr)
    if not probe_evaluator.layout.blocks:
        return dataclasses.replace(rates, words="; ".join(words))
    if config.eps == "auto":
        wide = config.objective != "loss"
        scale = _find_scale(
            probe_evaluator, state, probe_evaluator.layout.trained, wide=wide,
            tell=partial(tell, "measuring the perturbation scale"),
        )  # fmt: skip
        rates = dataclasses.replace(rates, eps=scale.eps)
        words.append(_wide_words(scale) if wide else _scale_words(scale))
    if config.lr == "auto":
        parts = assemble(config, rates.eps)
        own = partial(tell, "measuring the learning rate")
        lr = _find_rate(probe_evaluator, state, config, parts, own)
        rates = dataclasses.replace(rates, lr=lr)
        words.append(f"lr {lr:.3g} (the longest step that the noise of the estimates allows)")
    return dataclasses.replace(rates, words="; ".join([*words, rates.words]).strip("; "))


def _scale_words(scale: Scale) -> str:
    return (
        f"eps {scale.eps:g} (a perturbation changes the loss of a row by {scale.signal:.2g} nats, "
        f"{_rounded(scale.ratio)} times as much as rounding)"
    )


def _wide_words(scale: Scale) -> str:
    return (
        f"eps {scale.eps:g} (a perturbation changes the loss of a row by {scale.signal:.2g} nats, "
        f"enough to change the generated texts)"
    )


def _rounded(value: float) -> str:
    """A number with two significant digits, without an exponent."""
    if value < 10:
        return f"{value:.1f}"
    unit = 10 ** (math.floor(math.log10(value)) - 1)
    return f"{round(value / unit) * unit:,}"


class _DenseDirections(StepDirections):
    """Directions over all coordinates, whatever the sampler of the method is."""

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
    tell: Callable[[int, int], None],
) -> Scale:
    """Measure a perturbation scale.

    Args:
        probe_evaluator: evaluates losses.
        state: state before the first step; only read.
        tensors: tensors to perturb, and the block of each.
        private: perturb every example along its own direction.
        wide: find the scale that changes generated texts.
        tell: given the passes so far, and how many there are at most.
    """
    passes = itertools.count()
    batch = probe_evaluator.batches.part(0, PROBED_WIDE if wide else PROBED_EXAMPLES)
    directions = _DenseDirections(state)
    blocks = tuple(sorted(set(tensors.values())))
    seed = derive_seed(state.seed, "calibrate")

    def evaluate(scales: Sequence[float]) -> Losses:
        tell(next(passes), MOST_SCALES)
        probes = [Probe(seed, scale, private=private) for scale in scales]
        losses = probe_evaluator.losses(batch, blocks, probes, directions, tensors)
        if not np.isfinite(losses[0]).all():
            raise DivergedError(
                "the losses before the first step are not finite; 'edgezo eval' on the same rows "
                "says whether the model, the adapter or the rows are the cause"
            )
        return losses

    return find_wide_scale(evaluate) if wide else find_scale(evaluate)


def _find_rate(
    probe_evaluator: ProbeEvaluator,
    state: TrainingState,
    config: TuneConfig,
    parts: Parts,
    tell: Callable[[int, int], None],
) -> float:
    """Measure the learning rate from the estimates of the first steps.

    A score has its own units and hardly any slope before the first step. The length of a step is
    therefore measured with the loss, whatever the run optimizes. A few estimates of the score then
    show which rate gives that length, unless estimates are divided by their size anyway.
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
        tell(seen, PROBED_DIRECTIONS)
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
            "`lr` auto: the gradient estimates of the first steps are zero; give `lr` a number"
            + (", or a larger `eps`" if units else "")
        )
    return float(np.float32(lr))


def _rms(squares: Sequence[float]) -> float:
    """Root mean square over the steps with a signal: an anchor at theta itself gives none."""
    seen = [value for value in squares if value]
    return math.sqrt(sum(seen) / len(seen)) if seen else 0.0


def _unscaled(term: Term) -> Term:
    """A term in units of the gradient."""
    return dataclasses.replace(term, coeff=tuple(value / term.gain for value in term.coeff))


def _mean_square(state: TrainingState, terms: list[Term], blocks: Sequence[int]) -> float:
    """Mean square of the elements of an estimate, over all active tensors."""
    total, count = 0.0, 0
    for g in state.gradients(terms, blocks):
        total += float(np.square(g, dtype=np.float64).sum())
        count += g.size
    return total / count
