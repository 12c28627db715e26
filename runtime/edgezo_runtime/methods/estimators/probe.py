"""The interface of estimators: they yield probes, receive losses, and return gradient terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import DivergedError, RunFileError, UsageError

Losses = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StepInfo:
    """What an estimator knows about its step.

    Attributes:
        seed: seed of the step's noise, 0 to 2**64 - 1.
        batch_size: number of examples B.
        step: number of the step, from 0.
        lr: learning rate of the step.
        epoch: number of passes over the data before this one.
        blocks: the active blocks.
    """

    seed: int
    batch_size: int
    step: int = 0
    lr: float = 0.0
    epoch: int = 0
    blocks: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Probe:
    """A point at which the loss is evaluated: theta + scale * z(seed, tensor name, row).

    Attributes:
        seed: identifies z; 0 is a valid seed.
        scale: in weight units; 0 evaluates theta itself.
        private: True gives each example b of the batch its own z (row = b); else all share row 0.
        blocks: the perturbed blocks; None perturbs all active blocks. Within a pass, the first
            block of a probe is not before the first block of an earlier probe.
        anchored: perturb the rule's anchor instead of theta.
        batch: 0 is the step's batch, other numbers are further batches; the same for all probes of
            a pass.
    """

    seed: int
    scale: float
    private: bool = False
    blocks: tuple[int, ...] | None = None
    anchored: bool = False
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a gradient estimate: sum_b coeff[b] * z(seed, tensor name, row=b).

    Attributes:
        seed: identifies z.
        coeff: one weight per example if private, else a single weight.
        private: as in `Probe`.
        blocks: blocks whose tensors the term is for; None for all.
        curvature: second derivative of the loss along z, if the estimator measured it.
        gain: ratio of the coefficients to the gradient's, if the estimator rescales them.
    """

    seed: int
    coeff: tuple[float, ...]
    private: bool = False
    blocks: tuple[int, ...] | None = None
    curvature: float | None = None
    gain: float = 1.0

    def __post_init__(self) -> None:
        if not self.private and len(self.coeff) != 1:
            raise UsageError(f"a shared term has one coefficient, not {len(self.coeff)}")

    def concerns(self, block: int) -> bool:
        """Return True if the term is for the tensors of this block."""
        return self.blocks is None or block in self.blocks


Steps = Generator[list[Probe], Losses, list[Term]]
Estimator = Callable[[StepInfo], Steps]
"""estimator(info): a generator that yields the probes to evaluate together, receives their losses
in the form of `record_losses`, and returns the terms of g.

Later probes may depend on earlier losses. The generator is pure: the same info and losses give the
same terms.
"""


class EstimatorRun:
    """One step of an estimator: the probes to evaluate, and at the end the terms of the gradient.

        run = EstimatorRun(estimator, info)
        while run.probes:
            run.send(losses_of(run.probes))

    Steps and replays use it alike, so they get the same terms.

    Args:
        estimator: the estimator.
        info: the step.

    Attributes:
        probes: the probes to evaluate together next; empty at the end.
        terms: the terms of the gradient; empty before the end.
    """

    def __init__(self, estimator: Estimator, info: StepInfo) -> None:
        self._steps = estimator(info)
        self.probes = next(self._steps)
        self.terms: list[Term] = []

    def send(self, losses: Losses) -> None:
        """Send the losses of `probes`, in the form of `record_losses`."""
        try:
            self.probes = self._steps.send(losses)
        except StopIteration as end:
            self.probes, self.terms = [], end.value


def replay_estimator(estimator: Estimator, info: StepInfo, losses: Losses) -> list[Term]:
    """Run an estimator on recorded losses and return the same terms again.

    Args:
        estimator: the estimator.
        info: the step.
        losses: the losses of all probes in their order, as `record_losses` returned them.

    Raises:
        RunFileError: the losses do not match the probes of the estimator.
    """
    run, first = EstimatorRun(estimator, info), 0
    while run.probes:
        end = first + len(run.probes)
        rows = info.batch_size if run.probes[0].private else 1
        if end > len(losses) or losses.shape[1] != rows:
            raise RunFileError(
                f"step {info.step} has losses of {losses.shape[0]} probes and {losses.shape[1]} "
                f"rows, its estimator asks for {end} or more and {rows}"
            )
        run.send(losses[first:end])
        first = end
    if first != len(losses):
        raise RunFileError(
            f"step {info.step} has losses of {len(losses)} probes, its estimator asks for {first}"
        )
    return run.terms


def record_losses(losses: Losses, probes: Sequence[Probe]) -> Losses:
    """Reduce the losses of a pass to the form that the journal and the estimator use.

    Args:
        losses: (len(probes), B) float64, the loss of every example at every probe.
        probes: the evaluated probes; either all or none are private.

    Returns:
        (len(probes), B) for private probes, else the batch means, (len(probes), 1). The values are
        float64 that float32 holds exactly, so a replay from the journal gives the same bits.

    Raises:
        DivergedError: a loss is not finite as float32; names the probe and the example.
        UsageError: the shape is wrong, or private and shared probes are mixed.
    """
    if losses.ndim != 2 or len(losses) != len(probes):
        raise UsageError(
            f"losses must be ({len(probes)}, B), one row per probe, not {losses.shape}"
        )
    if len({(probe.private, probe.batch) for probe in probes}) != 1:
        raise UsageError("private and shared probes cannot be evaluated in one pass")
    with np.errstate(over="ignore", invalid="ignore"):  # reported below
        kept = losses if probes[0].private else losses.mean(axis=1, keepdims=True)
        rounded = kept.astype(np.float32)
    if not np.isfinite(rounded).all():
        _raise_diverged(losses, rounded, probes)
    return rounded.astype(np.float64)


def require_eps(eps: float) -> None:
    """Refuse a perturbation scale that is not a finite number above zero.

    Args:
        eps: in weight units.

    Raises:
        UsageError: it is not.
    """
    if not (math.isfinite(eps) and eps > 0):
        raise UsageError(f"eps must be a finite number above zero, not {eps}")


def _raise_diverged(
    losses: Losses, rounded: npt.NDArray[np.float32], probes: Sequence[Probe]
) -> None:
    p = int(np.argwhere(~np.isfinite(rounded))[0][0])
    bad = np.flatnonzero(~(np.abs(losses[p]) <= np.finfo(np.float32).max))
    where = f" (example {int(bad[0])} of the batch, {len(bad)} in all)" if len(bad) else ""
    raise DivergedError(
        f"loss {losses[p, bad[0]] if len(bad) else rounded[p, 0]} is not finite at probe {p} of "
        f"{len(probes)}, seed {probes[p].seed}, scale {probes[p].scale:g}{where}"
    )
