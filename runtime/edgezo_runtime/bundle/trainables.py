"""The trainables in a manifest: their scheme, and the role and shape of each tensor."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Literal

SchemeKind = Literal[
    "lora",
    "lora-xs",
    "ia3",
    "bitfit",
    "scales",
    "tt",
    "last-layers",
    "prompt",
    "prefix",
]

SCHEME_KINDS: tuple[str, ...] = typing.get_args(SchemeKind)

TrainableRole = Literal[
    "lora_A",
    "lora_R",
    "lora_B",
    "gain",
    "input_gain",
    "added_bias",
    "norm_weight",
    "norm_bias",
    "channel_scale",
    "tt_down",
    "tt_up",
    "weight",
    "prompt",
    "prompt_base",
    "prefix_key",
    "prefix_value",
]


@dataclass(frozen=True, slots=True)
class TrainableInfo:
    """One trainable tensor, without the leading axis P.

    role                     shape          meaning
    lora_A                   (rank, in)     factor at the input
    lora_R                   (rank, rank)   factor between the two others, of lora-xs
    lora_B                   (out, rank)    factor at the output
    gain                     (out,)         factor of the output
    channel_scale            (out,)         factor of the product, before the bias
    input_gain               (in,)          factor of the input
    added_bias               (out,)         added to the output
    norm_weight, norm_bias   (width,)       added to a norm's weight and bias
    tt_down, tt_up           (r, k, r')     a core of a tensor train
    weight                   (in, out)      the weight itself
    prompt, prompt_base      (N, H)         embeddings of virtual tokens, and their initial values
    prefix_key, prefix_value (n, N, D)      keys and values of virtual tokens
    """

    name: str
    block: int
    module: str
    role: TrainableRole
    shape: tuple[int, ...]
    trains: bool


@dataclass(frozen=True, slots=True)
class SchemeInfo:
    """How trainables enter a model; fields that a kind does not use are empty.

    Attributes:
        kind: one of `SCHEME_KINDS`; `edgezo export --help` describes them.
        targets: last components of the paths of the layers with trainables; empty if the kind
            chooses the layers.
        rank: inner dimension of low-rank factors or tensor trains.
        alpha: low-rank products are scaled by alpha / rank.
        train: for lora, the factors that train.
        biases: for bitfit, whether layers without a bias get one.
        bottleneck: for tt, the width between its two maps.
        layers: for last-layers, the number of blocks that train.
        tokens: for prompt and prefix, the tokens whose embeddings, or keys and values, initialize
            the virtual tokens.
    """

    kind: SchemeKind
    targets: tuple[str, ...] = ()
    rank: int | None = None
    alpha: float | None = None
    train: Literal["b", "ab"] | None = None
    biases: Literal["own", "all"] | None = None
    bottleneck: int | None = None
    layers: int | None = None
    tokens: tuple[int, ...] = ()

    @property
    def scale(self) -> float:
        """alpha / rank; 1 if there is no alpha."""
        return 1.0 if self.alpha is None or self.rank is None else self.alpha / self.rank

    @property
    def prompt_tokens(self) -> int:
        """Number of virtual tokens that pass through the blocks in front of every row."""
        return len(self.tokens) if self.kind == "prompt" else 0

    @property
    def prefix_tokens(self) -> int:
        """Number of virtual tokens that exist only as keys and values."""
        return len(self.tokens) if self.kind == "prefix" else 0

    @property
    def everywhere(self) -> bool:
        """Does the scheme always act on every token?"""
        return self.kind in ("last-layers", "prompt", "prefix")


ROLES: dict[SchemeKind, tuple[TrainableRole, ...]] = {
    "lora": ("lora_A", "lora_B"),
    "lora-xs": ("lora_A", "lora_R", "lora_B"),
    "ia3": ("gain", "input_gain"),
    "bitfit": ("added_bias", "norm_weight", "norm_bias"),
    "scales": ("channel_scale",),
    "tt": ("tt_down", "tt_up"),
    "last-layers": ("weight",),
    "prompt": ("prompt", "prompt_base"),
    "prefix": ("prefix_key", "prefix_value"),
}
"""Roles of each scheme's tensors."""

MAX_AXIS = 2**31 - 1
"""No dimension of a model is larger."""

MAX_BLOCKS = 2**12
"""No model has more blocks."""

_MAX_ELEMENTS = 2**40
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-9, 1e9
_COUNTS = ("rank", "bottleneck", "layers")

_MATRICES = frozenset({"lora_A", "lora_R", "lora_B", "weight", "prompt", "prompt_base"})
_CUBES = frozenset({"tt_down", "tt_up", "prefix_key", "prefix_value"})
_RANK_AXIS: dict[TrainableRole, int] = {"lora_A": 0, "lora_R": 0, "lora_B": 1}


def dimensions(role: TrainableRole) -> int:
    """Axes of a tensor of this role."""
    return 2 if role in _MATRICES else 3 if role in _CUBES else 1


def scheme_problem(scheme: SchemeInfo, vocab_size: int) -> str | None:
    """The first problem of a scheme, as text that begins with the field; None if there is none."""
    rank, alpha = scheme.rank, scheme.alpha
    for name in _COUNTS:
        count = getattr(scheme, name)
        if count is not None and not 0 <= count <= MAX_AXIS:
            return f"{name}: {count} is no dimension"
    if scheme.kind in ("lora", "lora-xs", "tt") and (rank is None or rank < 1):
        return f"rank: {rank} is not above zero"
    low_rank = scheme.kind in ("lora", "lora-xs")
    if low_rank and not (alpha is not None and math.isfinite(alpha) and alpha > 0):
        return f"alpha: {alpha} is not a finite number above zero"
    if rank != 0 and not _SMALLEST_SCALE <= abs(scheme.scale) <= _LARGEST_SCALE:
        return f"alpha: {alpha} is out of proportion to rank {rank}"
    if scheme.kind in ("prompt", "prefix") and not scheme.tokens:
        return f"tokens: {scheme.kind} without virtual tokens"
    for token in scheme.tokens:
        if not 0 <= token < vocab_size:
            return f"tokens: id {token} with a vocabulary of {vocab_size}"
    return None


def trainable_problem(info: TrainableInfo, scheme: SchemeInfo) -> str | None:
    """The first problem of a trainable of a scheme; None if there is none."""
    if info.role not in ROLES[scheme.kind]:
        return f"{scheme.kind} has no trainables of role {info.role}"
    if len(info.shape) != dimensions(info.role) or not all(0 < n <= MAX_AXIS for n in info.shape):
        return f"shape {str(info.shape)[:80]} does not fit the role {info.role}"
    if math.prod(info.shape) > _MAX_ELEMENTS:
        return f"shape {info.shape} is too large"
    axis = _RANK_AXIS.get(info.role)
    if axis is not None and info.shape[axis] != scheme.rank:
        return f"rank {info.shape[axis]}, scheme has {scheme.rank}"
    if info.role == "lora_R" and info.shape[0] != info.shape[1]:
        return f"shape {info.shape} is not square"
    tokens = {"prompt": 0, "prompt_base": 0, "prefix_key": 1, "prefix_value": 1}.get(info.role)
    if tokens is not None and info.shape[tokens] != len(scheme.tokens):
        return f"{info.shape[tokens]} virtual tokens, scheme has {len(scheme.tokens)}"
    return None
