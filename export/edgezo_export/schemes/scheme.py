"""What a fine-tuning scheme offers: which places of a block it edits, and with which tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgezo_export.schemes.site import Site
from edgezo_export.sources.model_source import TensorReader
from edgezo_runtime.bundle.manifest import SchemeInfo, SchemeKind, TrainableInfo

Float32 = npt.NDArray[np.float32]

Stage = Literal["input", "weight", "product", "output", "key", "value"]
"""Where an edit sits: a linear layer's input; in place of its product with the frozen weight; the
product before the bias; the output of a layer, a norm or a block's entry; earlier keys; values."""


@dataclass(frozen=True, slots=True)
class Place:
    """Something in a block that a scheme may edit.

    Attributes:
        kind: a linear layer, a norm, the hidden states a block starts from, or its attention.
        block: number of the block.
        module: module path; of the block for "entry" and "attention".
        in_features: size of the input; of a norm its width, of attention its key-value heads.
        out_features: size of the output; of attention the numbers in a head.
        in_out: a linear layer whose weights are stored (in, out).
        bias: has it one?
        ends: "attention" or "mlp" for the linear layer that one of them ends with.
        continues: can the attention go on from earlier keys and values?
    """

    kind: Literal["linear", "norm", "entry", "attention"]
    block: int
    module: str
    in_features: int
    out_features: int
    in_out: bool = False
    bias: bool = False
    ends: Literal["attention", "mlp"] | None = None
    continues: bool = True

    @property
    def name(self) -> str:
        """Last component of the module path."""
        return self.module.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where initial values come from.

    Attributes:
        reader: the checkpoint.
        keys_values: keys and values (n, N, D) that a block of the exported model makes of tokens.
    """

    reader: TensorReader
    keys_values: Callable[[int, tuple[int, ...]], tuple[Float32, Float32]]


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of what a place computes.

    Attributes:
        tensors: trainables that it brings.
        stage: see `Stage`.
        emit: adds it to the graph and returns what stands for the value from there on.
        values: initial values of the tensors, in their order.
    """

    tensors: tuple[TrainableInfo, ...]
    stage: Stage
    emit: Callable[[Site], ir.Value]
    values: Callable[[Origin], Iterable[Float32]]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a scheme may ask about a model before its graphs are made.

    Attributes:
        architecture: its Hugging Face model_type.
        layers: last components of the linear layers inside its blocks.
        num_blocks: how many blocks.
        hidden_size: H.
        vocab_size: V.
        max_seq: longest sequence, in tokens.
        special_ids: tokens with a meaning of their own.
        embedding: checkpoint name of the token embedding.
    """

    architecture: str
    layers: tuple[str, ...]
    num_blocks: int
    hidden_size: int
    vocab_size: int
    max_seq: int
    special_ids: frozenset[int]
    embedding: str


class Scheme(Protocol):
    """A way to make a model trainable; a frozen dataclass whose fields are its options.

    Attributes:
        kind: its name.
        chosen: fields that are no options: `resolve` fills them in.
    """

    kind: ClassVar[SchemeKind]
    chosen: ClassVar[frozenset[str]]

    def resolve(self, model: ModelFacts) -> Self:
        """The same with what depends on the model filled in.

        Raises:
            UsageError: it does not go with this model.
        """

    def edits(self, place: Place) -> Sequence[Edit]:
        """Its edits of a place, none for most."""

    def info(self) -> SchemeInfo:
        """The manifest's record."""
