"""Directions of many examples from one shared noise matrix and random signs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgezo_runtime.methods.estimators.probe import Term
from edgezo_runtime.methods.samplers.frame import Float32Array, Frame, Slot, Stateless
from edgezo_runtime.noise import NoiseKind, noise, noise_rows


class Flipout(Stateless):
    """z_b = U * (r_b s_b'), U (m, n) noise of the step, r_b and s_b signs of example b.

    The directions of any two examples are uncorrelated, and E z z' = I for each. An example takes
    m + n signs instead of m n numbers; all examples share one noise array.

    References:
        Wen et al. 2018, arXiv:1803.04386 (flipout); GRZO, arXiv:2606.02857.
    """

    def frame(self, name: str, theta: Float32Array, slot: Slot, step: int, seed: int) -> Frame:
        """Return the directions of a tensor; see `Sampler.frame`."""
        return _Flipped(theta.shape)


class _Flipped(Frame):
    """Treats a tensor as a matrix (m, n), its first axis by all others; a vector as (size, 1)."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        first = self.shape[0] if self.shape else 1
        self._matrix = (first, math.prod(self.shape[1:]))

    def rows(self, seed: int, name: str, rows: Sequence[int], kind: NoiseKind) -> Float32Array:
        left, right = self._signs(seed, name, rows)
        flipped = left[:, :, None] * right[:, None, :] * self._shared(seed, name, kind)
        return flipped.reshape(-1, *self.shape)

    def gather(self, terms: Sequence[Term], name: str, kind: NoiseKind) -> Float32Array:
        total = np.zeros(self._matrix, np.float32)
        for term in terms:
            signs = np.zeros(self._matrix, np.float32)
            left, right = self._signs(seed=term.seed, name=name, rows=range(len(term.coeff)))
            weighted = left * np.array(term.coeff, np.float32)[:, None]
            for own, other in zip(
                weighted, right, strict=True
            ):  # in order: every machine gets the same bits
                signs += own[:, None] * other
            signs *= self._shared(term.seed, name, kind)
            total += signs
        return total.reshape(self.shape)

    def _shared(self, seed: int, name: str, kind: NoiseKind) -> Float32Array:
        return noise(seed, name, self._matrix, kind=kind)

    def _signs(
        self, seed: int, name: str, rows: Sequence[int]
    ) -> tuple[Float32Array, Float32Array]:
        """Return (R, m) and (R, n) signs."""
        own = [f"{name}#{side}" for side in ("left", "right")]
        left, right = (
            noise_rows(seed, part, rows, (size,), kind="rademacher")
            for part, size in zip(own, self._matrix, strict=True)
        )
        return left, right
