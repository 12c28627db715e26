"""`tt`: bottleneck adapters after attention and MLP, whose maps are tensor trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgezo_export.graph_builder import COPIES
from edgezo_export.schemes.randomness import generator
from edgezo_export.schemes.scheme import Edit, Float32, ModelFacts, Origin, Place
from edgezo_export.schemes.site import Site, product
from edgezo_export.schemes.tensor_train import core_shapes, halves
from edgezo_runtime.bundle.manifest import SchemeInfo, SchemeKind, TrainableInfo
from edgezo_runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class TensorTrain:
    """The tensorized adapters of AdaZeta (Yang et al. 2024, arXiv:2406.18060).

    y += tanh(y D) U after the last linear layer of attention and after that of the MLP, before the
    residual sum. D (H, bottleneck) and U (bottleneck, H) are tensor trains without biases. The last
    core of U starts at zero, so the initial adapter changes nothing.

    Attributes:
        rank: of the tensor trains.
        bottleneck: width between D and U.
        seed: of the random cores.
    """

    kind: ClassVar[SchemeKind] = "tt"
    chosen: ClassVar[frozenset[str]] = frozenset()

    rank: int = 5
    bottleneck: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("rank", self.rank), ("bottleneck", self.bottleneck)):
            if value < 1:
                raise UsageError(f"`{name}` {value}: must be 1 or more")

    def resolve(self, model: ModelFacts) -> TensorTrain:
        """Return the scheme itself; nothing depends on the model."""
        return self

    def info(self) -> SchemeInfo:
        """Return the manifest's record."""
        return SchemeInfo("tt", rank=self.rank, bottleneck=self.bottleneck)

    def edits(self, place: Place) -> Sequence[Edit]:
        """Return an adapter after the last linear layer of attention or MLP."""
        if place.kind != "linear" or place.ends is None:
            return ()
        width = place.out_features
        down = self._cores(place, "tt_down", width, self.bottleneck)
        up = self._cores(place, "tt_up", self.bottleneck, width)

        def emit(site: Site) -> ir.Value:
            low = _times(site, site.y, down, width)
            high = _times(site, site.draft.op("Tanh", low), up, self.bottleneck)
            count = site.draft.op("Shape", high, start=0, end=1)
            return site.add(site.acting(high, count))

        def values(origin: Origin) -> Iterator[Float32]:
            yield from self._initial(down, width)
            *rest, last = self._initial(up, self.bottleneck)
            yield from rest
            yield np.zeros_like(last)

        return (Edit((*down, *up), "output", emit, values),)

    def _cores(
        self, place: Place, role: Literal["tt_down", "tt_up"], rows: int, columns: int
    ) -> tuple[TrainableInfo, ...]:
        return tuple(
            TrainableInfo(
                f"{place.module}.{role}_{index}", place.block, place.module, role, shape, True
            )
            for index, shape in enumerate(core_shapes(rows, columns, self.rank))
        )

    def _initial(self, cores: Sequence[TrainableInfo], rows: int) -> Iterator[Float32]:
        """Yield normal numbers; the entries of the whole matrix have a variance of 1 / rows."""
        paths = self.rank ** (len(cores) - 1)
        deviation = (1 / (rows * paths)) ** (0.5 / len(cores))
        for info in cores:
            random = generator(self.seed, info.name)
            yield (deviation * random.standard_normal(info.shape)).astype(np.float32)


def _times(site: Site, x: ir.Value, infos: Sequence[TrainableInfo], rows: int) -> ir.Value:
    """Append x (..., rows) times a tensor train (rows, columns): (P, ·, columns)."""
    shapes = [(info.shape[0], info.shape[1], info.shape[2]) for info in infos]
    cores = [_input(site, info) for info in infos]
    left, right = halves(site.draft, cores, shapes, rows)
    view = site.view(x, site.count(left), rows)
    low = product(site.draft, view, left, alone=shapes[0][2] == 1)
    return site.draft.op("MatMul", low, right)


def _input(site: Site, info: TrainableInfo) -> ir.Value:
    axis = f"{COPIES}{site.draft.local(info.name)}"
    return site.draft.trainable(info.name, (axis, *info.shape))
