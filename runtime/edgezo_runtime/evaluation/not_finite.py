"""Find out why a loss is not a finite number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.bundle import WEIGHTS_FILE, Bundle
from edgezo_runtime.bundle.weights import WeightsFile

_CHUNK = 4 << 20
"""Numbers that are looked at at once."""


def why_not_finite(bundle: Bundle, params: Mapping[str, npt.NDArray[np.float32]]) -> str:
    """Say where numbers that are not finite come from, and what to do.

    Args:
        bundle: the model that was evaluated.
        params: its trainables.
    Returns:
        The adapter or the weights, if they have such numbers; else the rows.
    Memory:
        4 MiB; pages of the weights that are read can be dropped.
    """
    for name, values in params.items():
        bad = _count(values)
        if bad:
            return (
                f"{bad} of {values.size} numbers of the adapter's tensor {name!r} are not finite; "
                f"take another adapter, or tune again with a lower learning rate"
            )
    weights = WeightsFile(bundle.path(WEIGHTS_FILE))
    for name, stored in weights.tensors.items():
        if stored.dtype != np.float32:
            continue
        values = weights.view(name, "float32", stored.shape)
        bad = _count(values)
        if bad:
            return (
                f"{bad} of {values.size} numbers of the model's tensor {name!r} are not finite; "
                f"export the model again from a checkpoint without such numbers"
            )
    return (
        "the weights and the adapter are finite, so numbers inside the model overflow on these "
        "rows; evaluate other rows to find those that do it"
    )


def _count(values: npt.NDArray[Any]) -> int:
    flat = values.reshape(-1)
    chunks = (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
    return sum(int((~np.isfinite(chunk)).sum()) for chunk in chunks)
