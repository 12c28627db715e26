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
    """The trainables of QZO (Shang et al. 2025, arXiv:2505.13430): one scale per output channel.

    int8 weights have one scale s per output channel: y = (x Wq) (s * gain) + bias. The gain trains,
    from 1, so a perturbation is relative to the scale. A float32 bundle has the same gains on its
    products.

    Attributes:
        targets: last components of the paths of the layers; empty for all linear layers.
    """

    kind: ClassVar[SchemeKind] = "scales"
    chosen: ClassVar[frozenset[str]] = frozenset()

    targets: tuple[str, ...] = ()

    def resolve(self, model: ModelFacts) -> Scales:
        """Check the targets."""
        check_targets(self.targets, model.layers)
        return self

    def info(self) -> SchemeInfo:
        """Return the manifest's record."""
        return SchemeInfo("scales", self.targets)

    def edits(self, place: Place) -> Sequence[Edit]:
        """Return a gain of the product of a linear layer, before its bias."""
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
