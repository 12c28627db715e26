"""Owns the samplers: the directions along which a tensor is perturbed.

Must not know models, data or update rules: a sampler sees one tensor, seeds and gradient terms.

To add one: a file here, an entry in `SAMPLERS`, and one in `METHODS` (`methods/catalogue.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from edgezo_runtime.methods.samplers.curvature import Curvature
from edgezo_runtime.methods.samplers.dense import Dense
from edgezo_runtime.methods.samplers.flipout import Flipout
from edgezo_runtime.methods.samplers.frame import Frame, Sampler
from edgezo_runtime.methods.samplers.low_rank import LowRank
from edgezo_runtime.methods.samplers.sparse import Sparse
from edgezo_runtime.methods.samplers.subspace import Subspace

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
