"""Directions of one tensor: noise in coordinates, and the linear map from them to the tensor.

z = lift(n) with n = noise(seed, name, row) of the shape `coords`. A sum of directions is the lift
of the sum of their coordinates, so an update costs one lift however many directions it has. The
same frame serves the probes and the update of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgezo_runtime.methods.estimators.probe import Term
from edgezo_runtime.noise import NoiseKind, add_weighted_noise, noise_rows

Float32Array = npt.NDArray[np.float32]
Slot = dict[str, npt.NDArray[Any]] | None


class Frame:
    """Every coordinate of the tensor on its own: z is the noise itself.

    Args:
        shape: of the tensor.

    Attributes:
        shape: of the tensor.
        coords: of the coordinates.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.coords = self.shape

    def lift(self, coords: Float32Array) -> Float32Array:
        """Take coordinates (R, *coords) to tensors (R, *shape)."""
        return coords

    def rows(self, seed: int, name: str, rows: Sequence[int], kind: NoiseKind) -> Float32Array:
        """Make z for several rows, (len(rows), *shape)."""
        return self.lift(noise_rows(seed, name, rows, self.coords, kind=kind))

    def gather(self, terms: Sequence[Term], name: str, kind: NoiseKind) -> Float32Array:
        """Coordinates of the gradient, sum over the terms and rows of coeff * n, in their order."""
        total = np.zeros(self.coords, np.float32)
        for term in terms:
            add_weighted_noise(total, term.seed, name, term.coeff, kind=kind)
        return total

    def gradient(self, terms: Sequence[Term], name: str, kind: NoiseKind) -> Float32Array:
        """The gradient estimate of the tensor, float32 of `shape`."""
        g: Float32Array = self.lift(self.gather(terms, name, kind)[None])[0]
        return g


class Sampler(Protocol):
    """Which directions a tensor is perturbed along."""

    def init(self, theta: Float32Array) -> Slot:
        """Make what the sampler keeps for a tensor, or None."""
        ...

    def frame(self, name: str, theta: Float32Array, slot: Slot, step: int, seed: int) -> Frame:
        """The directions of a tensor in a step.

        Args:
            name: the tensor's name.
            theta: the tensor before the step; only read, and not after this returns.
            slot: what `init` or the last `advance` returned.
            step: of the run, from 0.
            seed: of the run.

        Returns:
            The frame; a function of the arguments alone.
        """
        ...

    def advance(
        self, slot: Slot, frame: Frame, name: str, terms: Sequence[Term], kind: NoiseKind
    ) -> Slot:
        """Take over what a step showed, after its update.

        Args:
            slot: the sampler's state of the tensor; its arrays are reused.
            frame: of the step.
            name: the tensor's name.
            terms: the estimate of the step.
            kind: distribution of the noise.

        Returns:
            The slot for the next step.
        """
        ...


class Stateless:
    """What samplers share that keep nothing."""

    def init(self, theta: Float32Array) -> Slot:
        """Keep nothing; see `Sampler.init`."""
        return None

    def advance(
        self, slot: Slot, frame: Frame, name: str, terms: Sequence[Term], kind: NoiseKind
    ) -> Slot:
        """Keep nothing; see `Sampler.advance`."""
        return None
