"""`last-layers`: the weights of the last blocks train, in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import onnx_ir as ir

from edgezo_export.schemes.scheme import Edit, Float32, ModelFacts, Origin, Place
from edgezo_export.schemes.site import Site, product
from edgezo_runtime.bundle.manifest import SchemeInfo, SchemeKind, TrainableInfo
from edgezo_runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class LastLayers:
    """The linear layers of the last blocks; float32, also in an int8 bundle.

    Attributes:
        last_layers: number of blocks.
        first: number of the first of these blocks, filled in by `resolve`.
    """

    kind: ClassVar[SchemeKind] = "last-layers"
    chosen: ClassVar[frozenset[str]] = frozenset({"first"})

    last_layers: int = 1
    first: int | None = None

    def __post_init__(self) -> None:
        if self.last_layers < 1:
            raise UsageError(f"`last_layers` {self.last_layers}: must be 1 or more")

    def resolve(self, model: ModelFacts) -> LastLayers:
        """Fill in the first block that trains.

        Raises:
            UsageError: the model has fewer blocks.
        """
        if self.last_layers > model.num_blocks:
            raise UsageError(
                f"`last_layers` {self.last_layers}: the model has {model.num_blocks} blocks"
            )
        return replace(self, first=model.num_blocks - self.last_layers)

    def info(self) -> SchemeInfo:
        """Return the manifest's record."""
        return SchemeInfo("last-layers", layers=self.last_layers)

    def edits(self, place: Place) -> Sequence[Edit]:
        """Return the weight (in, out) that replaces the frozen one; biases stay frozen."""
        if place.kind != "linear" or self.first is None or place.block < self.first:
            return ()
        module, shape = place.module, (place.in_features, place.out_features)
        info = TrainableInfo(f"{module}.weight", place.block, module, "weight", shape, True)

        def emit(site: Site) -> ir.Value:
            weight = site.copies(info)
            view = site.view(site.x, site.count(weight), shape[0])
            y = product(site.draft, view, weight, alone=shape[1] == 1)
            return site.draft.op("Reshape", y, site.like)

        def values(origin: Origin) -> Iterator[Float32]:
            stored = origin.reader.read(info.name)
            yield stored if place.in_out else stored.T

        return (Edit((info,), "weight", emit, values),)
