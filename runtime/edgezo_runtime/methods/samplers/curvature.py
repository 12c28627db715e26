"""Directions scaled by a diagonal estimate of the curvature."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.estimators.probe import Term
from edgezo_runtime.methods.samplers.frame import Float32Array, Frame, Slot
from edgezo_runtime.noise import NoiseKind, noise

_RANGE = (1e-4, 1e4)


class Curvature:
    """z = n / sqrt(H), with H a running diagonal estimate of the second derivatives.

        H <- (1 - s) H + s |z' L'' z| / 2 * H n^2

    The probes and the update of a step use the same H, which is updated afterwards. So the estimate
    is H^-1 times the gradient: it is preconditioned, and in this sense biased. H starts at 1 and
    stays within 1e-4 and 1e4.

    Args:
        smoothing: s, 0 <= s < 1; 0 leaves H at 1, which is MeZO with one more evaluation.

    Raises:
        UsageError: smoothing is out of range.

    Memory:
        One float32 array the size of theta.

    References:
        Zhao et al. 2024, arXiv:2402.15173 (HiZOO), equation 6 and Algorithm 1. The published script
        sets s = 0.
    """

    def __init__(self, smoothing: float = 1e-6) -> None:
        if not 0 <= smoothing < 1:
            raise UsageError(f"`smoothing` {smoothing}: must be at least 0 and below 1")
        self._smoothing = smoothing

    def init(self, theta: Float32Array) -> Slot:
        """Start with H = 1; see `Sampler.init`."""
        return {"curvature": np.ones_like(theta)}

    def frame(self, name: str, theta: Float32Array, slot: Slot, step: int, seed: int) -> Frame:
        """Return directions scaled by the current H; see `Sampler.frame`."""
        if slot is None:
            raise UsageError(f"'{name}': the sampler's state is missing")
        return _Scaled(np.float32(1) / np.sqrt(slot["curvature"]).astype(np.float32))

    def advance(
        self, slot: Slot, frame: Frame, name: str, terms: Sequence[Term], kind: NoiseKind
    ) -> Slot:
        """Update H by the curvature along the step's directions; see `Sampler.advance`."""
        if slot is None:
            return None
        diagonal = slot["curvature"]
        for term in terms:
            if term.curvature is None or not self._smoothing:
                continue
            square = np.square(noise(term.seed, name, diagonal.shape, kind=kind))
            weight = min(abs(term.curvature) / 2, math.sqrt(_RANGE[1]))
            square *= np.float32(self._smoothing * weight)
            square += np.float32(1 - self._smoothing)
            np.multiply(diagonal, square, out=diagonal)
        np.clip(diagonal, *(np.float32(bound) for bound in _RANGE), out=diagonal)
        return slot


class _Scaled(Frame):
    def __init__(self, scale: Float32Array) -> None:
        super().__init__(scale.shape)
        self._scale = scale

    def lift(self, coords: Float32Array) -> Float32Array:
        return coords * self._scale
