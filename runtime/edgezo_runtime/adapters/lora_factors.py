"""Adapters as products of two factors beside linear layers, however they were trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter, scheme_settings
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import RunFileError, UsageError

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class LoraFactors:
    """y += scale * x A^T B^T beside one linear layer.

    Attributes:
        module: path of the layer.
        a: (rank, in).
        b: (out, rank).
        scale: of the product.
    """

    module: str
    a: Float32
    b: Float32
    scale: float

    @property
    def rank(self) -> int:
        """Inner dimension."""
        return len(self.a)


def lora_factors(adapter: Adapter) -> list[LoraFactors]:
    """Give the factors of a `lora` or `lora-xs` adapter; B R A is a LoRA whose B is B R.

    Raises:
        UsageError: the adapter is of another kind.
    """
    scheme, tensors = adapter.info.scheme, adapter.tensors
    if scheme.kind not in ("lora", "lora-xs"):
        raise UsageError(f"{adapter.path}: {scheme.kind} is no product of two factors")
    found: list[LoraFactors] = []
    for module in adapter.modules:
        a, b = tensors[f"{module}.lora_A"], tensors[f"{module}.lora_B"]
        if scheme.kind == "lora-xs":
            b = b @ tensors[f"{module}.lora_R"]
        found.append(LoraFactors(module, a, np.ascontiguousarray(b), scheme.scale))
    return found


def as_trainables(bundle: Bundle, factors: Iterable[LoraFactors]) -> dict[str, Float32]:
    """Give every trainable of a bundle, with these factors in place of its own.

    The bundle's scale is part of its graphs, so B takes up the difference. If the factors have a
    smaller rank, the rest of the bundle's A stays, with zeros in B. In LoRA-XS, R becomes the
    identity.

    Args:
        bundle: of kind `lora` or `lora-xs`.
        factors: for layers that the bundle adapts.
    Raises:
        UsageError: the bundle trains something else.
        RunFileError: the bundle lacks a layer, or a shape or rank does not fit.
    """
    scheme = bundle.manifest.scheme
    if scheme.kind not in ("lora", "lora-xs") or scheme.rank is None:
        raise UsageError(
            f"bundle {bundle.root} was exported with {scheme_settings(scheme)}; low-rank adapters "
            f"fit one exported with `trainable` lora"
        )
    result = bundle.trainables()
    for one in factors:
        names = f"{one.module}.lora_A", f"{one.module}.lora_B"
        if names[0] not in result:
            raise RunFileError(
                f"bundle {bundle.root} adapts no layer {one.module!r:.200}; export it with "
                f"`targets` that name {one.module.rpartition('.')[2][:80]!r}"
            )
        a, b = (result[name].copy() for name in names)
        if one.a.shape[1] != a.shape[1] or len(one.b) != len(b):
            raise RunFileError(
                f"{one.module!r:.200}: factors {one.b.shape} and {one.a.shape}, in bundle "
                f"{bundle.root} {b.shape} and {a.shape}; they are of another model"
            )
        rank = one.rank
        if rank > scheme.rank:
            raise RunFileError(
                f"{one.module!r:.200}: rank {rank}, bundle {bundle.root} has {scheme.rank}; export "
                f"it with `rank` {rank}"
            )
        a[:rank] = one.a
        b[:, :rank], b[:, rank:] = one.b * np.float32(one.scale / scheme.scale), 0
        if scheme.kind == "lora-xs":
            result[f"{one.module}.lora_R"] = np.eye(scheme.rank, dtype=np.float32)
        result[names[0]], result[names[1]] = a, b
    return result
