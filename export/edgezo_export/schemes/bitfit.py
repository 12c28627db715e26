"""`bitfit`: biases of linear layers, weights and biases of norms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgezo_export.schemes.scheme import Edit, Float32, ModelFacts, Origin, Place
from edgezo_export.schemes.site import Site
from edgezo_runtime.bundle.manifest import SchemeInfo, SchemeKind, TrainableInfo


@dataclass(frozen=True, slots=True)
class BitFit:
    """BitFit (Ben Zaken et al. 2021, arXiv:2106.10199), extended to norms.

    The trained tensors are differences from the checkpoint's values and start at zero: y += bias of
    a linear layer, y += n(x) weight + bias of a norm, where n(x) is the norm without weight and
    bias. A gradient step on a difference equals one on the value.

    Attributes:
        biases: "own" trains the biases of the model; "all" also adds a bias to linear layers
            without one. In models without biases, "own" trains only the norms.
    """

    kind: ClassVar[SchemeKind] = "bitfit"
    chosen: ClassVar[frozenset[str]] = frozenset()

    biases: Literal["own", "all"] = "own"

    def resolve(self, model: ModelFacts) -> BitFit:
        """Return the scheme itself; nothing depends on the model."""
        return self

    def info(self) -> SchemeInfo:
        """Return the manifest's record."""
        return SchemeInfo("bitfit", biases=self.biases)

    def edits(self, place: Place) -> Sequence[Edit]:
        """Return a bias of a linear layer; a weight of a norm, and a bias if the norm has one."""
        size = place.out_features
        if place.kind == "linear" and (place.bias or self.biases == "all"):
            return (_edit((_info(place, "added_bias"),), size),)
        if place.kind != "norm":
            return ()
        infos = [_info(place, "norm_weight")]
        infos += [_info(place, "norm_bias")] if place.bias else []
        return (_edit(tuple(infos), size),)


def _info(place: Place, role: Literal["added_bias", "norm_weight", "norm_bias"]) -> TrainableInfo:
    name, shape = f"{place.module}.{role}", (place.out_features,)
    return TrainableInfo(name, place.block, place.module, role, shape, True)


def _edit(infos: tuple[TrainableInfo, ...], size: int) -> Edit:
    def emit(site: Site) -> ir.Value:
        draft = site.draft
        for info in infos:
            tensor = site.copies(info)
            count = site.count(tensor)
            change = site.per_token(tensor)
            if info.role == "norm_weight":
                change = draft.op("Mul", site.view(site.x, count, size), change)
            site.y = site.add(site.acting(change, count))
        return site.y

    def values(origin: Origin) -> Iterator[Float32]:
        for info in infos:
            yield np.zeros(info.shape, np.float32)

    return Edit(infos, "output", emit, values)
