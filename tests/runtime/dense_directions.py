"""Directions of a step without a sampler, for tests that only evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.engine.perturbed import PerturbedParams
from edgezo_runtime.methods.estimators import Probe
from edgezo_runtime.methods.samplers import Frame
from edgezo_runtime.noise import NoiseKind

Float32 = npt.NDArray[np.float32]


class DenseDirections:
    """Every tensor in all its coordinates, around theta.

    Args:
        theta: the trainables.
    """

    def __init__(self, theta: Mapping[str, Float32]) -> None:
        self._theta = theta

    def frame(self, name: str) -> Frame:
        """Of all coordinates."""
        return Frame(self._theta[name].shape)

    def base(self, name: str, *, anchored: bool) -> Float32:
        """Theta; there is no anchor."""
        assert not anchored
        return self._theta[name]


def dense_params(
    theta: Mapping[str, Float32],
    active: Mapping[str, int],
    probes: Sequence[Probe],
    row_example: npt.NDArray[np.int64],
    kind: NoiseKind = "rademacher",
) -> PerturbedParams:
    """Copies of theta for a pass; see `PerturbedParams`."""
    return PerturbedParams(theta, active, DenseDirections(theta), probes, row_example, kind)


def trained_blocks(bundle: Bundle) -> dict[str, int]:
    """The trainables that train, and the block of each."""
    return {info.name: info.block for info in bundle.manifest.trainables if info.trains}
