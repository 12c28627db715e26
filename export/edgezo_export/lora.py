"""The trainable kind `lora`: y += (alpha / rank) * x A^T B^T beside a frozen linear layer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgezo_export.draft import GraphDraft
from edgezo_runtime.errors import UsageError
from edgezo_runtime.manifest import SchemeInfo, TrainableInfo

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


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685).

    Attributes:
        rank: inner dimension r, at least 1. The noise of a zeroth-order estimate grows with the
            number of trained parameters, so the default is the smallest.
        alpha: numerator of the scale alpha / rank; None means equal to the rank, a scale of 1.
        targets: last component of the module paths that get an adapter, e.g. ("down_proj",); empty
            for the layer MLPs end with, whatever the architecture calls it (see `DEFAULT_LAYERS`).
        train: "b" trains B with A frozen (LoRA-FA, arXiv:2308.03303), "ab" both.
        seed: of the random A.
    """

    rank: int = 1
    alpha: float | None = None
    targets: tuple[str, ...] = ()
    train: Literal["b", "ab"] = "b"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"--rank {self.rank}: must be 1 or more")
        if self.alpha is not None and not (np.isfinite(self.alpha) and self.alpha > 0):
            raise UsageError(f"--alpha {self.alpha}: must be a number above zero")

    def resolve(self, layers: Sequence[str]) -> LoraConfig:
        """The same with targets filled in.

        Args:
            layers: last components of the linear layers inside the model's blocks.
        Raises:
            UsageError: no layer is called like a target, or none like the end of an MLP.
        """
        found = [name for name in self.targets or DEFAULT_LAYERS if name in layers]
        missing = [name for name in self.targets if name not in layers]
        if missing or not found:
            wanted = ",".join(missing) or "none given"
            raise UsageError(
                f"--targets {wanted}: the model has no linear layer of this name in its blocks; "
                f"it has {', '.join(layers)}"
            )
        return replace(self, targets=self.targets or (found[0],))

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def matches(self, module: str) -> bool:
        """Does the linear layer at this module path get an adapter?"""
        return module.rsplit(".", 1)[-1] in self.targets

    def info(self) -> SchemeInfo:
        """The manifest's record."""
        return SchemeInfo("lora", self.rank, self.scale * self.rank, self.targets, self.train)

    def trainables(
        self, block: int, module: str, in_features: int, out_features: int
    ) -> tuple[TrainableInfo, TrainableInfo]:
        """Both factors of one layer."""
        return (
            TrainableInfo(
                f"{module}.lora_A",
                block,
                module,
                "lora_A",
                (self.rank, in_features),
                self.train == "ab",
            ),
            TrainableInfo(
                f"{module}.lora_B", block, module, "lora_B", (out_features, self.rank), True
            ),
        )


def add_lora(
    draft: GraphDraft,
    config: LoraConfig,
    factors: tuple[TrainableInfo, TrainableInfo],
    x: ir.Value,
    y: ir.Value,
    like: ir.Value,
    active: ir.Value,
) -> ir.Value:
    """y + scale * (x A^T) B^T, every run of rows with its own copy of A and B.

    Args:
        draft: graph to add to; the factors become its inputs with a leading axis P.
        config: rank and scale.
        factors: A (rank, in) and B (out, rank).
        x: input of the layer (R, S, in) or (R*S, in).
        y: frozen result, of the same leading dimensions.
        like: int64 vector, the shape of y.
        active: (R, S) float32, 1 for tokens the adapter acts on, 0 for the others.
    """
    low = x
    for info in factors:
        axis = f"copies_{info.role}_{draft.local(info.module)}"
        factor = draft.trainable(info.name, (axis, *info.shape))
        copies = draft.op("Shape", factor, start=0, end=1)
        rows = draft.op("Concat", copies, draft.ints(-1, info.shape[1]), axis=0)
        view = draft.op("Reshape", low, rows)  # (P, R/P * S, in or rank)
        columns = draft.op("Transpose", factor, perm=[0, 2, 1])
        low = _product(draft, view, columns, alone=info.shape[0] == 1)
        if info.role == "lora_A":
            low = draft.op("Mul", low, draft.scalar(config.scale))
            column = draft.op("Concat", copies, draft.ints(-1, 1), axis=0)
            low = draft.op("Mul", low, draft.op("Reshape", active, column))
    return draft.op("Add", y, draft.op("Reshape", low, like))


def _product(draft: GraphDraft, x: ir.Value, columns: ir.Value, *, alone: bool) -> ir.Value:
    """x times `columns`; a column that is alone is multiplied twice, and one result left out.

    Alone it would take the matrix-vector kernel, which goes through four tokens at a time and
    rounds the last one to three differently: a token's result would depend on how many follow it.
    """
    if not alone:
        return draft.op("MatMul", x, columns)
    twice = draft.op("MatMul", x, draft.op("Concat", columns, columns, axis=2))
    return draft.op("Slice", twice, draft.ints(0), draft.ints(1), draft.ints(2))


def initial_values(
    config: LoraConfig, infos: Iterable[TrainableInfo]
) -> dict[str, npt.NDArray[np.float32]]:
    """B = 0 and A uniform in +-1/sqrt(in) (Kaiming, as PEFT does), addressed by tensor name."""
    values: dict[str, npt.NDArray[np.float32]] = {}
    for info in infos:
        if info.role == "lora_B":
            values[info.name] = np.zeros(info.shape, np.float32)
            continue
        digest = hashlib.blake2b(
            info.name.encode(), digest_size=16, key=config.seed.to_bytes(8, "little")
        ).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        bound = 1 / np.sqrt(info.shape[1])
        values[info.name] = generator.uniform(-bound, bound, info.shape).astype(np.float32)
    return values
