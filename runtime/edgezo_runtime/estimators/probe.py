"""What an estimator and the loop exchange: probes out, losses in, terms of a gradient out."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import DivergedError, UsageError
from edgezo_runtime.noise import NoiseKind, add_weighted_noise

Losses = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """A place to evaluate the loss at: theta + scale * z(seed, tensor name, row).

    Attributes:
        seed: names z; 0 is a seed like any other.
        scale: in weight units; 0 is theta itself.
        private: every example b of the batch has its own z (row = b); else all share row 0.
    """

    seed: int
    scale: float
    private: bool = False


@dataclass(frozen=True)
class Term:
    """A part of a gradient estimate: sum_b coeff[b] * z(seed, tensor name, row=b).

    Attributes:
        seed: names z.
        coeff: one weight an example if private, else a single one.
        private: as in `Probe`.
    """

    seed: int
    coeff: tuple[float, ...]
    private: bool = False

    def __post_init__(self) -> None:
        if not self.private and len(self.coeff) != 1:
            raise UsageError(f"a shared term has one coefficient, not {len(self.coeff)}")


Steps = Generator[list[Probe], Losses, list[Term]]
Estimator = Callable[[int, int], Steps]
"""estimator(seed, batch_size): a generator that yields the probes to evaluate together, receives
their losses as `record_losses` makes them, and returns the terms of g.

Later probes may depend on earlier losses. The generator is pure: same seed and losses, same terms.
"""


def record_losses(losses: Losses, probes: Sequence[Probe]) -> Losses:
    """Reduce the losses of a pass to what the journal keeps and the estimator sees.

    Args:
        losses: (len(probes), B) float64, the loss of every example at every probe.
        probes: what was evaluated; private all of them or none.

    Returns:
        float64 of values that float32 holds exactly, so a replay from the journal gives the same
        bits: (len(probes), B) for private probes, else the batch means, (len(probes), 1).

    Raises:
        DivergedError: a loss is not finite as float32; names the probe and the example.
        UsageError: the shape is wrong, or private and shared probes are mixed.
    """
    if losses.ndim != 2 or len(losses) != len(probes):
        raise UsageError(f"losses must be ({len(probes)}, B), one row a probe, not {losses.shape}")
    if len({probe.private for probe in probes}) != 1:
        raise UsageError("private and shared probes cannot be evaluated in one pass")
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is reported below
        kept = losses if probes[0].private else losses.mean(axis=1, keepdims=True)
        rounded = kept.astype(np.float32)
    if not np.isfinite(rounded).all():
        _raise_diverged(losses, rounded, probes)
    return rounded.astype(np.float64)


def gradient(
    terms: Iterable[Term], name: str, shape: Sequence[int], *, kind: NoiseKind
) -> npt.NDArray[np.float32]:
    """Make g for one tensor from the terms of the estimate, added in their order.

    Args:
        terms: what an estimator returned.
        name: the tensor's name.
        shape: the tensor's shape.
        kind: the distribution of z.

    Returns:
        float32 array of `shape`.

    Memory:
        The result and about 2 MB of scratch; z is made piece by piece.
    """
    total = np.zeros(tuple(shape), np.float32)
    for term in terms:
        add_weighted_noise(total, term.seed, name, term.coeff, kind=kind)
    return total


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
