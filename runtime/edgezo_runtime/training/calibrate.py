"""Learning rate and perturbation scale from the model's own losses, before the first step.

Perturbation scale. Along private directions the odd part of the losses,
(l(theta + eps z) - l(theta - eps z)) / 2, is the signal. Its value at a scale that changes nothing
is the noise floor: the rounding of the integer layers and of the losses. The measurement takes the
smallest eps of a ladder whose signal is `SIGNAL_TO_NOISE` times the floor. Slopes get smaller while
the model learns, and the signal has to stay above the floor. The ladder ends where the even part
outgrows the odd one: there the losses are no longer nearly linear. A score that has steps instead
of a slope (right or wrong) changes only with perturbations that change the generated texts. The
loss shows how large those are: `find_wide_scale`.

Learning rate. A step of SGD along an estimate g with n elements loses lr^2/2 tr(H)/n |g|^2 to the
curvature and gains lr |grad|^2, so the best rate is inversely proportional to |g|^2 / n, the mean
square of the estimate's elements. A few passes cannot measure |grad| or tr(H). Their ratio is a
loss, though, and tr(H) is close to the mean square slope of a row's loss (Gauss-Newton). So lr is
chosen with lr * mean(g^2) = `STEP_NATS`, or `STEADY_NATS` if the rate stays constant. Both were
measured once (docs/decisions/0011). Other rules get the rate at which they move theta as far. The
rate of first-order steps follows from their effect on losses: `find_first_order_rate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.rules import FrameRule, Rule
from edgezo_runtime.methods.samplers import Frame
from edgezo_runtime.noise import noise
from edgezo_runtime.training.rule_update import init_slot, mover

SIGNAL_TO_NOISE = 1e4
"""Signal that a perturbation has to make, as a multiple of the noise floor."""

STEP_NATS = 3e-3
"""lr times the mean square element of an SGD step's gradient estimate, in nats."""

STEADY_NATS = 1e-3
"""The same for a constant rate, with which the noise of late steps is not averaged out."""

FIRST_ORDER_NATS = 0.06
"""Root mean square change of a row's loss by a first-order step along random signs, nats."""

SMALLEST, LARGEST, FACTOR = 2.0**-13, 2.0**7, 4.0
"""The ladder of perturbation scales."""

MOST_SCALES = 2 + round(math.log(LARGEST / SMALLEST, FACTOR))
"""Scales of the ladder, and the one that changes nothing."""

NOTHING = 1e-9
"""A scale that changes no loss by more than rounding."""

NONLINEAR = 0.5
"""Ratio of even part to odd part above which losses are not nearly linear."""

WIDE_NATS = 0.3
"""Root mean square of the odd part of a row's loss at which generated texts begin to change."""

_WALK = 64
_SAMPLE = (32, 32)

Losses = npt.NDArray[np.float64]
Evaluate = Callable[[Sequence[float]], Losses]
"""Losses (len(scales), B) at theta + scale z, with a different z for every example."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A perturbation scale and the signal that was measured with it.

    Attributes:
        eps: the scale.
        signal: root mean square of the odd part of the losses, nats.
        floor: the same at a scale that changes nothing, nats.
    """

    eps: float
    signal: float
    floor: float

    @property
    def ratio(self) -> float:
        """Signal over noise."""
        return self.signal / self.floor


def find_scale(evaluate: Evaluate) -> Scale:
    """Find the smallest perturbation scale with a signal well above the noise.

    Args:
        evaluate: evaluates a pair and the centre at each scale.

    Returns:
        The first scale of the ladder whose signal is `SIGNAL_TO_NOISE` times the floor. If losses
        stop being nearly linear before that, the scale with the largest signal until then.

    Raises:
        UsageError: no scale changes the losses.
    """
    floor, _, centre = _parts(evaluate, NOTHING)
    floor = max(floor, float(np.finfo(np.float32).eps / 2 * max(1.0, abs(centre))))
    best: Scale | None = None
    eps = SMALLEST
    while eps <= LARGEST:
        odd, even, _ = _parts(evaluate, eps)
        found = Scale(eps, odd, floor)
        linear = math.isfinite(odd) and even <= NONLINEAR * odd
        if linear and found.ratio >= SIGNAL_TO_NOISE:
            return found
        if linear and (best is None or odd > best.signal):
            best = found
        if not math.isfinite(odd) or (odd > SIGNAL_TO_NOISE * floor and not linear):
            break
        eps *= FACTOR
    if best is None or best.ratio < 1:
        raise _no_answer(floor)
    return best


def find_wide_scale(evaluate: Evaluate) -> Scale:
    """Find the smallest perturbation scale that changes the generated texts.

    Args:
        evaluate: evaluates losses, which have slopes where a score has none.

    Returns:
        The scale whose signal is `WIDE_NATS`, interpolated between two scales of the ladder. If the
        even part outgrows the odd one before that, the scale with the largest signal until then.

    Raises:
        UsageError: no scale changes the losses.
    """
    floor, _, centre = _parts(evaluate, NOTHING)
    floor = max(floor, float(np.finfo(np.float32).eps / 2 * max(1.0, abs(centre))))
    best = Scale(0.0, 0.0, floor)
    eps = SMALLEST
    while eps <= LARGEST and best.signal < WIDE_NATS:
        odd, even, _ = _parts(evaluate, eps)
        if not math.isfinite(odd) or (even > odd and best.signal > SIGNAL_TO_NOISE * floor):
            break
        best = max(best, Scale(eps, odd, floor), key=lambda scale: scale.signal)
        eps *= FACTOR
    if best.ratio < 1:
        raise _no_answer(floor)
    share = min(1.0, WIDE_NATS / best.signal)  # the signal grows like eps, or slower
    return Scale(best.eps * share, best.signal * share, floor)


def _no_answer(floor: float) -> UsageError:
    return UsageError(
        f"`eps` auto: no perturbation up to {LARGEST:g} changes the losses by more than their "
        f"noise of {floor:.1e} nats; check that the trainables act on the scored tokens, or give "
        f"`eps` a number"
    )


def _parts(evaluate: Evaluate, eps: float) -> tuple[float, float, float]:
    """Root mean squares of the odd and the even part of the losses; the mean loss at the centre."""
    centre, plus, minus = evaluate((0.0, eps, -eps))
    with np.errstate(over="ignore", invalid="ignore"):
        odd, even = (plus - minus) / 2, (plus + minus) / 2 - centre
        return _rms(odd), _rms(even), float(np.mean(centre))


def _rms(values: Losses) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def find_first_order_rate(scale: Scale) -> float:
    """The learning rate at which a step of Adam changes the loss of a row by `FIRST_ORDER_NATS`.

    Adam's steps have nearly the length of lr times a vector of signs, whatever the gradient is. The
    effect of such a vector on a row's loss therefore shows how long a step may be.

    Args:
        scale: measured along random signs.
    """
    return float(np.float32(FIRST_ORDER_NATS * scale.eps / scale.signal))


def find_rate(
    true_rms: float, applied_rms: float, rule: Rule | FrameRule, nats: float = STEP_NATS
) -> float:
    """The learning rate at which a rule moves theta as far as SGD does at its best.

    Args:
        true_rms: root mean square of the elements of the gradient estimate, nats per unit of theta.
        applied_rms: the same of the gradient that the rule is given, normalized or clipped.
        rule: how a tensor moves by a gradient.
        nats: lr times the mean square of the elements, as `STEP_NATS`.

    Returns:
        The rate, or `math.inf` if the estimate is zero.
    """
    moved = _walk(rule, applied_rms)
    if not true_rms or not moved:
        return math.inf
    return nats / true_rms / moved


def _walk(rule: Rule | FrameRule, rms: float) -> float:
    """Distance that an element moves per step at lr 1, as root mean square.

    It is that of a random walk, so that momentum counts with the whole effect of a gradient.
    """
    theta = np.zeros(_SAMPLE, np.float32)
    frame = Frame(_SAMPLE)
    slot, move = init_slot(rule, theta, lambda: frame), mover(rule)
    for step in range(_WALK):
        g = noise(step, "walk", _SAMPLE, kind="gaussian") * np.float32(rms)
        slot = move(frame, theta, g, slot, step, 1.0)
    return _rms(theta.astype(np.float64)) / math.sqrt(_WALK)
