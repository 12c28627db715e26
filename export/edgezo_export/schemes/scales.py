"""`scales`: the quantization scales of the frozen weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgezo_export.schemes.scheme import Edit, Float32, ModelFacts, Origin, Place
from edgezo_export.schemes.site import Site
from edgezo_export.schemes.targets import check_targets
from edgezo_runtime.bundle.manifest import SchemeInfo, SchemeKind, TrainableInfo


@dataclass(frozen=True, slots=True)
class Scales:
    """What QZO trains (Shang et al. 2025, arXiv:2505.13430): one scale an output channel.

    int8 weights have one scale s for each output channel. y = (x Wq) (s * gain) + bias, and the
    gain trains, from 1: a perturbation is then relative to the scale, whatever its size. A float32
    bundle gets the same gains on its products.

    Attributes:
        targets: last components of the layers' module paths; empty for all linear layers.
    """

    kind: ClassVar[SchemeKind] = "scales"
    chosen: ClassVar[frozenset[str]] = frozenset()

    targets: tuple[str, ...] = ()

    def resolve(self, model: ModelFacts) -> Scales:
        """The same, its targets checked."""
        check_targets(self.targets, model.layers)
        return self

    def info(self) -> SchemeInfo:
        """The manifest's record."""
        return SchemeInfo("scales", self.targets)

    def edits(self, place: Place) -> Sequence[Edit]:
        """A gain of a linear layer's product, before its bias."""
        if place.kind != "linear" or (self.targets and place.name not in self.targets):
            return ()
        module, size = place.module, place.out_features
        info = TrainableInfo(
            f"{module}.channel_scale", place.block, module, "channel_scale", (size,), True
        )

        def emit(site: Site) -> ir.Value:
            return site.scaled(site.copies(info), size)

        def values(origin: Origin) -> Iterator[Float32]:
            yield np.ones(size, np.float32)

        return (Edit((info,), "product", emit, values),)
