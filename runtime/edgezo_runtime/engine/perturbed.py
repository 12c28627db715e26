"""Perturbed copies of the trainables, made when their block runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgezo_runtime.methods.estimators import Probe
from edgezo_runtime.methods.samplers import Frame
from edgezo_runtime.noise import NoiseKind

Float32 = npt.NDArray[np.float32]


class Directions(Protocol):
    """The directions that probes are taken along in a step."""

    def frame(self, name: str) -> Frame:
        """The directions of a tensor; called from several threads."""

    def base(self, name: str, *, anchored: bool) -> Float32:
        """The tensor that is perturbed: theta, or the rule's anchor."""


class PerturbedParams:
    """theta + scale * z for every probe of a pass; theta is only read.

    Args:
        theta: every trainable input of the bundle by name.
        active: blocks of the perturbed inputs, by name.
        directions: those of the step.
        probes: G probes, all shared or all private.
        row_example: (B,) which example of the batch a sequence belongs to.
        kind: distribution of the noise.
    Memory:
        The copies of one tensor for one chunk at a time.
    """

    def __init__(
        self,
        theta: Mapping[str, Float32],
        active: Mapping[str, int],
        directions: Directions,
        probes: Sequence[Probe],
        row_example: npt.NDArray[np.int64],
        kind: NoiseKind,
    ) -> None:
        self._theta = theta
        self._active = active
        self._directions = directions
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
        block = self._active.get(name)
        if block is None or not any(_moves(probe, block) for probe in self._probes):
            return theta[None]
        private = self._probes[0].private
        examples = self._row_example[rows] if private else np.zeros(1, np.int64)
        copies = np.empty((len(self._probes), len(examples), *theta.shape), np.float32)
        frame = self._directions.frame(name)
        made: tuple[int, Float32] | None = None
        for group, probe in enumerate(self._probes):
            base = self._directions.base(name, anchored=probe.anchored)
            if not _moves(probe, block):
                copies[group] = base
                continue
            if made is None or made[0] != probe.seed:
                z = frame.rows(probe.seed, name, examples.tolist(), self._kind)
                made = (probe.seed, z)
            np.multiply(made[1], np.float32(probe.scale), out=copies[group])
            copies[group] += base
        return copies.reshape(-1, *theta.shape)


def _moves(probe: Probe, block: int) -> bool:
    return probe.scale != 0 and (probe.blocks is None or block in probe.blocks)
