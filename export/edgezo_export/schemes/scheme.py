"""The contract of a fine-tuning scheme: the places of a block that it edits, and its tensors."""

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
"""The value that an edit changes: the input of a linear layer; its product with the frozen weight,
which is replaced; the product before the bias; the output of a layer, a norm or the entry of a
block; earlier keys; earlier values."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a block that a scheme may edit.

    Attributes:
        kind: a linear layer, a norm, the hidden states that a block starts from, or its attention.
        block: number of the block.
        module: module path; of the block for "entry" and "attention".
        in_features: size of the input; the width of a norm; the key-value heads of attention.
        out_features: size of the output; the numbers per head of attention.
        in_out: the weights of the linear layer are stored (in, out).
        bias: the layer or norm has a bias.
        ends: "attention" or "mlp" for the linear layer that one of them ends with.
        continues: the attention can continue from earlier keys and values.
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
    """The source of initial values.

    Attributes:
        reader: the checkpoint.
        keys_values: computes the keys and values (n, N, D) of a block of the exported model.
    """

    reader: TensorReader
    keys_values: Callable[[int, tuple[int, ...]], tuple[Float32, Float32]]


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of the result of a place.

    Attributes:
        tensors: its trainables.
        stage: the value that it changes.
        emit: appends it to the graph and returns the changed value.
        values: yields the initial values of the tensors, in their order.
    """

    tensors: tuple[TrainableInfo, ...]
    stage: Stage
    emit: Callable[[Site], ir.Value]
    values: Callable[[Origin], Iterable[Float32]]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts about a model that a scheme may use before the graphs are built.

    Attributes:
        architecture: its Hugging Face model_type.
        layers: last components of the linear layers inside its blocks.
        num_blocks: number of blocks.
        hidden_size: H.
        vocab_size: V.
        max_seq: longest sequence, in tokens.
        special_ids: special tokens, such as padding.
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
    """A fine-tuning scheme: a frozen dataclass whose fields are its options.

    Attributes:
        kind: its name.
        chosen: fields that are not options; `resolve` fills them in.
    """

    kind: ClassVar[SchemeKind]
    chosen: ClassVar[frozenset[str]]

    def resolve(self, model: ModelFacts) -> Self:
        """Return a copy whose fields that depend on the model are filled in.

        Raises:
            UsageError: the scheme does not go with this model.
        """

    def edits(self, place: Place) -> Sequence[Edit]:
        """Return the edits of a place; most places have none."""

    def info(self) -> SchemeInfo:
        """Return the manifest's record."""
