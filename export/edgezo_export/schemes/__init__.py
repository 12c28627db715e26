"""Fine-tuning schemes, one per file: which tensors train, and how they change a block.

It knows the places of a block and how to append to its graph. It must not know how a block is
lowered or which estimator tunes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from edgezo_export.schemes.bitfit import BitFit
from edgezo_export.schemes.ia3 import Ia3
from edgezo_export.schemes.last_layers import LastLayers
from edgezo_export.schemes.lora import Lora
from edgezo_export.schemes.lora_xs import LoraXs
from edgezo_export.schemes.prefix import Prefix
from edgezo_export.schemes.prompt import Prompt
from edgezo_export.schemes.scales import Scales
from edgezo_export.schemes.scheme import Scheme
from edgezo_export.schemes.tt import TensorTrain
from edgezo_runtime.bundle.manifest import SchemeInfo, SchemeKind
from edgezo_runtime.errors import UsageError

__all__ = [
    "SCHEMES",
    "BitFit",
    "Ia3",
    "LastLayers",
    "Lora",
    "LoraXs",
    "Prefix",
    "Prompt",
    "Scales",
    "Scheme",
    "TensorTrain",
    "make_scheme",
    "scheme_of",
]

SCHEMES: dict[SchemeKind, type[Scheme]] = {
    "lora": Lora,
    "lora-xs": LoraXs,
    "ia3": Ia3,
    "bitfit": BitFit,
    "scales": Scales,
    "tt": TensorTrain,
    "last-layers": LastLayers,
    "prompt": Prompt,
    "prefix": Prefix,
}
"""Scheme by name; `edgezo export --trainable` lists these names."""


def make_scheme(kind: str, options: Mapping[str, Any]) -> Scheme:
    """Make a scheme from the options of a user.

    Args:
        kind: key of `SCHEMES`.
        options: by the name of the field of the scheme.
    Raises:
        UsageError: there is no such scheme, it lacks an option, or it refuses a value.
    """
    if kind not in SCHEMES:
        raise UsageError(f"`trainable` {kind}: expected one of {', '.join(SCHEMES)}")
    for name in options:
        owners = [other for other, scheme in SCHEMES.items() if name in _options(scheme)]
        if kind not in owners:
            raise UsageError(
                f"`{name}` does not go with `trainable` {kind}; it is an option of "
                f"{', '.join(owners)}"
            )
    made: Scheme = cast(Any, SCHEMES[kind])(**options)
    return made


def scheme_of(info: SchemeInfo) -> Scheme:
    """Make the scheme that a manifest records; initial values are not part of the record."""
    kind: Any = SCHEMES[info.kind]
    recorded = {
        "targets": info.targets,
        "rank": info.rank,
        "alpha": info.alpha,
        "lora_train": info.train,
        "biases": info.biases,
        "bottleneck": info.bottleneck,
        "last_layers": info.layers,
        "tokens": info.tokens,
    }
    own = {field.name for field in dataclasses.fields(kind)}
    made: Scheme = kind(**{n: value for n, value in recorded.items() if n in own and value})
    return made


def _options(scheme: type[Scheme]) -> set[str]:
    """Return the fields of a scheme that are options."""
    return {field.name for field in dataclasses.fields(cast(Any, scheme))} - scheme.chosen
