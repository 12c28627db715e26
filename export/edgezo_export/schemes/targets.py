"""The linear layers that a scheme adapts, by the last component of their path."""

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
"""Names of the layer that an MLP ends with, whose output goes to the residual stream. The names
c_proj of GPT-2, dense of BERT and Wo of ModernBERT also occur at the end of attention."""


def last_of_mlp(wanted: tuple[str, ...], layers: Sequence[str]) -> tuple[str, ...]:
    """Return the layers that a user named, else the last layer of the MLP.

    Args:
        wanted: names given by the user; empty for the default.
        layers: last components of the linear layers inside the model's blocks.
    Raises:
        UsageError: no layer has the name of a target, or a known name of the last layer of an MLP.
    """
    check_targets(wanted, layers)
    found = [name for name in wanted or DEFAULT_LAYERS if name in layers]
    if not found:
        raise _refusal("none given", layers)
    return wanted or (found[0],)


def check_targets(wanted: Sequence[str], layers: Sequence[str]) -> None:
    """Refuse names that no layer has.

    Raises:
        UsageError: one of the names belongs to no layer.
    """
    missing = [name for name in wanted if name not in layers]
    if missing:
        raise _refusal(",".join(missing), layers)


def _refusal(wanted: str, layers: Sequence[str]) -> UsageError:
    return UsageError(
        f"`targets` {wanted}: the model has no linear layer of this name in its blocks; "
        f"it has {', '.join(layers)}"
    )
