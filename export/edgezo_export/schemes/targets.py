"""Which linear layers a scheme takes, by the last component of their module path."""

from __future__ import annotations

from collections.abc import Sequence

from edgezo_runtime.errors import UsageError

DEFAULT_LAYERS = (
    "down_proj",
    "c_proj",
    "fc2",
    "fc_out",
    "dense_4h_to_h",
    "lin2",
    "w2",
    "Wo",
    "dense",
)
"""Names of the layer an MLP ends with, where it writes to the residual stream. GPT-2's c_proj,
BERT's dense and ModernBERT's Wo are also the names of the layer that attention ends with."""


def last_of_mlp(wanted: tuple[str, ...], layers: Sequence[str]) -> tuple[str, ...]:
    """The layers a user named, else the one MLPs end with.

    Args:
        wanted: as given; empty for the default.
        layers: last components of the linear layers inside the model's blocks.
    Raises:
        UsageError: no layer is called like a target, or none like the end of an MLP.
    """
    check_targets(wanted, layers)
    found = [name for name in wanted or DEFAULT_LAYERS if name in layers]
    if not found:
        raise _refusal("none given", layers)
    return wanted or (found[0],)


def check_targets(wanted: Sequence[str], layers: Sequence[str]) -> None:
    """Refuse names that no layer has.

    Raises:
        UsageError: there is one.
    """
    missing = [name for name in wanted if name not in layers]
    if missing:
        raise _refusal(",".join(missing), layers)


def _refusal(wanted: str, layers: Sequence[str]) -> UsageError:
    return UsageError(
        f"--targets {wanted}: the model has no linear layer of this name in its blocks; "
        f"it has {', '.join(layers)}"
    )
