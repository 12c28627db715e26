"""`lora`: y += (alpha / rank) * x A^T B^T beside a frozen linear layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from edgezo_export.schemes.randomness import generator
from edgezo_export.schemes.scheme import Edit, Float32, ModelFacts, Origin, Place
from edgezo_export.schemes.site import low_rank
from edgezo_export.schemes.targets import check_targets
from edgezo_runtime.bundle.manifest import SchemeInfo, SchemeKind, TrainableInfo
from edgezo_runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685).

    Attributes:
        rank: inner dimension r, at least 1. The noise of a zeroth-order estimate grows with the
            number of trained parameters, so the default is the smallest.
        alpha: numerator of the scale alpha / rank; None means the rank, a scale of 1.
        targets: last components of the paths of the adapted layers, e.g. ("down_proj",); empty
            for every linear layer of the blocks.
        lora_train: "b" trains B with A frozen (LoRA-FA, arXiv:2308.03303), "ab" trains both.
        seed: of the random A.
    """

    kind: ClassVar[SchemeKind] = "lora"
    chosen: ClassVar[frozenset[str]] = frozenset()

    rank: int = 1
    alpha: float | None = None
    targets: tuple[str, ...] = ()
    lora_train: Literal["b", "ab"] = "b"
    seed: int = 0

    def __post_init__(self) -> None:
        check_rank(self.rank, self.alpha)

    def resolve(self, model: ModelFacts) -> Lora:
        """Fill in the targets."""
        check_targets(self.targets, model.layers)
        return replace(self, targets=self.targets or model.layers)

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def info(self) -> SchemeInfo:
        """Return the manifest's record."""
        return SchemeInfo("lora", self.targets, self.rank, self.scale * self.rank, self.lora_train)

    def edits(self, place: Place) -> Sequence[Edit]:
        """Return both factors beside a linear layer among the targets."""
        if place.kind != "linear" or place.name not in self.targets:
            return ()
        block, module = place.block, place.module
        a, b = (self.rank, place.in_features), (place.out_features, self.rank)
        trains = self.lora_train == "ab"
        factors = (
            TrainableInfo(f"{module}.lora_A", block, module, "lora_A", a, trains),
            TrainableInfo(f"{module}.lora_B", block, module, "lora_B", b, True),
        )
        emit = partial(low_rank, factors=factors, scale=self.scale)
        return (Edit(factors, "output", emit, partial(self._values, factors)),)

    def _values(self, factors: Sequence[TrainableInfo], origin: Origin) -> Iterator[Float32]:
        """Yield A, uniform in +-1/sqrt(in) (Kaiming, as PEFT does), and B = 0."""
        a, b = factors
        bound = 1 / np.sqrt(a.shape[1])
        yield generator(self.seed, a.name).uniform(-bound, bound, a.shape).astype(np.float32)
        yield np.zeros(b.shape, np.float32)


def check_rank(rank: int, alpha: float | None) -> None:
    """Refuse an impossible rank or alpha.

    Raises:
        UsageError: one of them is impossible; the message names it.
    """
    if rank < 1:
        raise UsageError(f"`rank` {rank}: must be 1 or more")
    if alpha is not None and not (np.isfinite(alpha) and alpha > 0):
        raise UsageError(f"`alpha` {alpha}: must be a number above zero")
