"""`lora-xs`: y += (alpha / rank) * x A^T R^T B^T with A and B from the layer's own weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np

from edgezo_export.schemes.lora import check_rank
from edgezo_export.schemes.scheme import Edit, Float32, ModelFacts, Origin, Place
from edgezo_export.schemes.site import low_rank
from edgezo_export.schemes.svd import truncated_svd
from edgezo_export.schemes.targets import last_of_mlp
from edgezo_runtime.bundle.manifest import SchemeInfo, SchemeKind, TrainableInfo
from edgezo_runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class LoraXs:
    """LoRA-XS (Balazy et al. 2024, arXiv:2405.17604): r^2 numbers per layer train.

    With the truncated SVD W (out, in) = U S V^T, A = S V^T (r, in) and B = U (out, r) are frozen
    and R (r, r) trains. It starts at zero here, so the initial adapter changes nothing; the paper
    draws it from a normal distribution of standard deviation 1e-5.

    Attributes:
        rank: r, at least 1.
        alpha: numerator of the scale alpha / rank; None means the rank, a scale of 1.
        targets: last components of the paths of the adapted layers; empty for the last of the MLP.
        seed: of the randomized SVD of large matrices.
    """

    kind: ClassVar[SchemeKind] = "lora-xs"
    chosen: ClassVar[frozenset[str]] = frozenset()

    rank: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_rank(self.rank, self.alpha)

    def resolve(self, model: ModelFacts) -> LoraXs:
        """Fill in the targets."""
        return replace(self, targets=last_of_mlp(self.targets, model.layers))

    def info(self) -> SchemeInfo:
        """Return the manifest's record."""
        alpha = float(self.rank) if self.alpha is None else self.alpha
        return SchemeInfo("lora-xs", self.targets, self.rank, alpha)

    def edits(self, place: Place) -> Sequence[Edit]:
        """Return three factors beside a linear layer among the targets."""
        if place.kind != "linear" or place.name not in self.targets:
            return ()
        if self.rank > min(place.in_features, place.out_features):
            raise UsageError(
                f"`rank` {self.rank}: {place.module} is {place.out_features} x "
                f"{place.in_features}; choose at most the smaller of the two"
            )
        block, module, rank = place.block, place.module, self.rank
        a, b = (rank, place.in_features), (place.out_features, rank)
        factors = (
            TrainableInfo(f"{module}.lora_A", block, module, "lora_A", a, False),
            TrainableInfo(f"{module}.lora_R", block, module, "lora_R", (rank, rank), True),
            TrainableInfo(f"{module}.lora_B", block, module, "lora_B", b, False),
        )
        scale = 1.0 if self.alpha is None else self.alpha / rank
        emit = partial(low_rank, factors=factors, scale=scale)
        return (Edit(factors, "output", emit, partial(self._values, place)),)

    def _values(self, place: Place, origin: Origin) -> Iterator[Float32]:
        """Yield A, R = 0 and B."""
        name = f"{place.module}.weight"
        u, s, v = truncated_svd(name, origin.reader, self.rank, self.seed)
        if place.in_out:
            u, v = v, u
        yield np.ascontiguousarray((s * v).T)
        yield np.zeros((self.rank, self.rank), np.float32)
        yield np.ascontiguousarray(u)
