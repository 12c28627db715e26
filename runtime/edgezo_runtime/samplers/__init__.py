"""Samplers say which directions a tensor is perturbed along.

To add one: a file here, an entry in `SAMPLERS`, and one in `edgezo_runtime.methods.METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable

from edgezo_runtime.samplers.curvature import Curvature
from edgezo_runtime.samplers.dense import Dense
from edgezo_runtime.samplers.flipout import Flipout
from edgezo_runtime.samplers.frame import Frame, Sampler
from edgezo_runtime.samplers.low_rank import LowRank
from edgezo_runtime.samplers.sparse import Sparse
from edgezo_runtime.samplers.subspace import Subspace

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "dense": Dense,
    "sparse": Sparse,
    "subspace": Subspace,
    "low_rank": LowRank,
    "curvature": Curvature,
    "flipout": Flipout,
}

__all__ = [
    "SAMPLERS",
    "Curvature",
    "Dense",
    "Flipout",
    "Frame",
    "LowRank",
    "Sampler",
    "Sparse",
    "Subspace",
]
