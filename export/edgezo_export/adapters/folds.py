"""The changes of an adapter to the weights of the base model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter, split_name
from edgezo_runtime.adapters.formats import CONV1D_MODELS, check_format
from edgezo_runtime.adapters.lora_factors import LoraFactors, lora_factors

Float32 = npt.NDArray[np.float32]

Fold = Callable[[Float32, slice], Float32]
"""Returns new values of some rows (of the first axis) of a tensor; raises ValueError if shapes do
not fit."""


def folds(adapter: Adapter) -> Iterator[tuple[str, Fold, bool]]:
    """Yield the changes of parameters.

    Yields:
        Name of a parameter, its change, and whether the model must have it.
    Raises:
        UsageError: the adapter is not a change of weights.
    """
    check_format(adapter, "merged")
    in_out = adapter.info.architecture in CONV1D_MODELS
    if adapter.info.scheme.kind in ("lora", "lora-xs"):
        for one in lora_factors(adapter):
            yield f"{one.module}.weight", _product(one, in_out), True
        return
    for name, value in adapter.tensors.items():
        module, role = split_name(name)
        weight, bias = f"{module}.weight", f"{module}.bias"
        if role == "weight":
            yield weight, _replaced(value if in_out else value.T), True
        elif role in ("gain", "channel_scale"):
            yield weight, _scaled(value, along_rows=not in_out), True
            if role == "gain":
                yield bias, _scaled(value, along_rows=True), False
        elif role == "input_gain":
            yield weight, _scaled(value, along_rows=in_out), True
        elif role == "norm_weight":
            yield weight, _added(value), True
        else:
            yield bias, _added(value), True


def _product(one: LoraFactors, in_out: bool) -> Fold:
    """W + scale * B A; `in_out` if the weight is stored (in, out)."""
    left, right = (one.a.T, one.b.T) if in_out else (one.b, one.a)

    def fold(rows: Float32, at: slice) -> Float32:
        change = left[at] @ right
        _require(rows.shape == change.shape, rows, change)
        return rows + np.float32(one.scale) * change

    return fold


def _scaled(gain: Float32, *, along_rows: bool) -> Fold:
    def fold(rows: Float32, at: slice) -> Float32:
        own = gain[at] if along_rows else gain
        _require(len(own) == rows.shape[0 if along_rows else -1], rows, own)
        return rows * (own.reshape(-1, *[1] * (rows.ndim - 1)) if along_rows else own)

    return fold


def _added(change: Float32) -> Fold:
    def fold(rows: Float32, at: slice) -> Float32:
        _require(rows.shape == change[at].shape, rows, change[at])
        return rows + change[at]

    return fold


def _replaced(value: Float32) -> Fold:
    def fold(rows: Float32, at: slice) -> Float32:
        _require(rows.shape == value[at].shape, rows, value[at])
        return value[at]

    return fold


def _require(fits: bool, rows: Float32, own: Float32) -> None:
    if not fits:
        raise ValueError(f"rows of shape {rows.shape} in the model, {own.shape} in the adapter")
