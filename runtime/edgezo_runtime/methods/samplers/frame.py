"""Directions of one tensor: noise in coordinates, and a linear map from coordinates to the tensor.

z = lift(n) with n = noise(seed, name, row) of the shape `coords`. A sum of directions is the lift
of the sum of their coordinates, so an update costs one lift for any number of directions. The
probes and the update of a step use the same frame.
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
    """The identity map: z is the noise itself.

    Args:
        shape: shape of the tensor.

    Attributes:
        shape: shape of the tensor.
        coords: shape of the coordinates.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.coords = self.shape

    def lift(self, coords: Float32Array) -> Float32Array:
        """Map coordinates (R, *coords) to tensors (R, *shape)."""
        return coords

    def rows(self, seed: int, name: str, rows: Sequence[int], kind: NoiseKind) -> Float32Array:
        """Make z for several rows, (len(rows), *shape)."""
        return self.lift(noise_rows(seed, name, rows, self.coords, kind=kind))

    def gather(self, terms: Sequence[Term], name: str, kind: NoiseKind) -> Float32Array:
        """Sum coeff * n over the terms and rows in their order: the gradient's coordinates."""
        total = np.zeros(self.coords, np.float32)
        for term in terms:
            add_weighted_noise(total, term.seed, name, term.coeff, kind=kind)
        return total

    def gradient(self, terms: Sequence[Term], name: str, kind: NoiseKind) -> Float32Array:
        """Return the gradient estimate of the tensor, float32 of `shape`."""
        g: Float32Array = self.lift(self.gather(terms, name, kind)[None])[0]
        return g


class Sampler(Protocol):
    """Chooses the directions along which a tensor is perturbed."""

    def init(self, theta: Float32Array) -> Slot:
        """Make the sampler's state for a tensor; None if it has no state."""
        ...

    def frame(self, name: str, theta: Float32Array, slot: Slot, step: int, seed: int) -> Frame:
        """Return the directions of a tensor in a step.

        Args:
            name: the tensor's name.
            theta: the tensor before the step; only read, and only during this call.
            slot: the slot that `init` or the last `advance` returned.
            step: step of the run, from 0.
            seed: seed of the run.

        Returns:
            The frame; it depends on the arguments only.
        """
        ...

    def advance(
        self, slot: Slot, frame: Frame, name: str, terms: Sequence[Term], kind: NoiseKind
    ) -> Slot:
        """Update the sampler's state after the update of a step.

        Args:
            slot: the sampler's state for the tensor; its arrays are reused.
            frame: frame of the step.
            name: the tensor's name.
            terms: the gradient estimate of the step.
            kind: distribution of the noise.

        Returns:
            The slot for the next step.
        """
        ...


class Stateless:
    """Base of samplers without state."""

    def init(self, theta: Float32Array) -> Slot:
        """Return None: the sampler has no state."""
        return None

    def advance(
        self, slot: Slot, frame: Frame, name: str, terms: Sequence[Term], kind: NoiseKind
    ) -> Slot:
        """Return None: the sampler has no state."""
        return None
