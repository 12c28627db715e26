"""Perturbed copies of the trainables, made when their block runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np
import numpy.typing as npt

from edgezo_runtime.estimators import Probe
from edgezo_runtime.noise import NoiseKind, noise_rows

Float32 = npt.NDArray[np.float32]


class PerturbedParams:
    """theta + scale * z for every probe of a pass; theta is only read.

    Args:
        theta: every trainable input of the bundle by name.
        active: names that are perturbed.
        probes: G of them, all shared or all private.
        row_example: (B,) which example of the batch a sequence belongs to.
        kind: distribution of z.
    Memory:
        The copies of one tensor for one chunk at a time.
    """

    def __init__(
        self,
        theta: Mapping[str, Float32],
        active: Set[str],
        probes: Sequence[Probe],
        row_example: npt.NDArray[np.int64],
        kind: NoiseKind,
    ) -> None:
        self._theta = theta
        self._active = active
        self._probes = probes
        self._row_example = row_example
        self._kind = kind

    @property
    def private(self) -> bool:
        """Are the probes private to examples?"""
        return self._probes[0].private

    def copies(self, name: str, rows: npt.NDArray[np.int64]) -> Float32:
        """(1, *shape) where nothing differs, else (G, *shape), or (G * len(rows), *shape) for
        private probes."""
        theta = self._theta[name]
        if name not in self._active:
            return theta[None]
        private = self._probes[0].private
        examples = self._row_example[rows] if private else np.zeros(1, np.int64)
        copies = np.empty((len(self._probes), len(examples), *theta.shape), np.float32)
        made: tuple[int, Float32] | None = None
        for group, probe in enumerate(self._probes):
            if made is None or made[0] != probe.seed:
                z = noise_rows(probe.seed, name, examples.tolist(), theta.shape, kind=self._kind)
                made = (probe.seed, z)
            np.multiply(made[1], np.float32(probe.scale), out=copies[group])
        copies += theta
        return copies.reshape(-1, *theta.shape)
