"""`ia3`: gains on keys, values and the input of the MLP's last layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgezo_export.schemes.scheme import Edit, Float32, ModelFacts, Origin, Place
from edgezo_export.schemes.site import Site
from edgezo_runtime.bundle.manifest import SchemeInfo, SchemeKind, TrainableInfo, TrainableRole
from edgezo_runtime.errors import UsageError

_KEYS_VALUES = (
    ("k_proj", "v_proj"),
    ("key", "value"),
    ("key_proj", "value_proj"),
    ("k_lin", "v_lin"),
    ("c_attn",),
    ("query_key_value",),
    ("qkv_proj",),
    ("Wqkv",),
)
"""Names of the layers that compute keys and values; fused layers compute the queries as well, whose
gains PEFT trains along with the others."""


@dataclass(frozen=True, slots=True)
class Ia3:
    """(IA)^3 (Liu et al. 2022, arXiv:2205.05638): one gain per channel, from 1.

    The places are those of PEFT for Llama and GPT-2: the layers that compute keys and values, found
    by name, and the layer that the MLP ends with, found in the graph.

    Attributes:
        targets: names of the layers that compute keys and values, filled in by `resolve`.
    """

    kind: ClassVar[SchemeKind] = "ia3"
    chosen: ClassVar[frozenset[str]] = frozenset({"targets"})

    targets: tuple[str, ...] = ()

    def resolve(self, model: ModelFacts) -> Ia3:
        """Fill in the layers that compute keys and values.

        Raises:
            UsageError: no layer has one of the known names.
        """
        for names in _KEYS_VALUES:
            if all(name in model.layers for name in names):
                return replace(self, targets=names)
        raise UsageError(
            f"`trainable` ia3: cannot tell which layers compute keys and values in "
            f"{model.architecture}, which has {', '.join(model.layers)}; use scales or lora"
        )

    def info(self) -> SchemeInfo:
        """Return the manifest's record."""
        return SchemeInfo("ia3", self.targets)

    def edits(self, place: Place) -> Sequence[Edit]:
        """Return a gain of keys and values, or of the input of the last layer of the MLP."""
        if place.kind != "linear":
            return ()
        if place.ends == "mlp":
            return (_gain(place, "input", "input_gain", place.in_features),)
        if place.name in self.targets:
            return (_gain(place, "output", "gain", place.out_features),)
        return ()


def _gain(place: Place, stage: Literal["input", "output"], role: TrainableRole, size: int) -> Edit:
    info = TrainableInfo(f"{place.module}.{role}", place.block, place.module, role, (size,), True)

    def emit(site: Site) -> ir.Value:
        return site.scaled(site.copies(info), size)

    def values(origin: Origin) -> Iterator[Float32]:
        yield np.ones(size, np.float32)

    return Edit((info,), stage, emit, values)
