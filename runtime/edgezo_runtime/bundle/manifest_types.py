"""The types of a manifest's entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DTYPES = frozenset(
    {"bool", "float16", "float32", "float64", "int8", "int32", "int64", "uint8", "uint16", "uint32"}
)


ModelTask = Literal["causal-lm", "masked-lm", "classification", "embedding"]
"""What a model's last part makes of its states: the next token, a masked one, a class of its own
head, or the embedding of a text."""


PAST = ("past_key", "past_value")
"""Inputs of a block that takes keys and values of earlier tokens, (R, n, P, D) each."""


NEW = "new"
"""Dimension of the keys and values that a block makes, where it gives those of new tokens alone."""


SLOTS = "slots"
"""Input of a block with a prompt, (R, S) int64: the virtual token at each position, N for none."""


LAYER_INPUT = "input."
"""Begins the name of an output of a block: the input (R, S, in) of the linear layer that follows in
the name, whose output is added to the hidden states that the block returns."""


LAYER_SLOPE = "slope."
"""Begins the name of an output of a block whose layer, which follows in the name, is followed by an
RMS norm before the sum: (R, S, H), the norm's gain over the root mean square of the layer's output,
the diagonal part of the norm's derivative."""


GRAD = "grad"
"""Input of a backward graph: the gradient with respect to the forward graph's output."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a graph; a str in `shape` names a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """The tensor that is fed to an input; of a frozen weight, the rows from `start` on."""

    input: str
    tensor: str
    start: int = 0


@dataclass(frozen=True, slots=True)
class GraphInfo:
    """An ONNX file with its inputs and outputs; blocks that differ only in tensors share a file.

    `routed` names inputs of `weights` that are read only if a token is routed to their expert.
    """

    file: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    trainables: tuple[Binding, ...]
    weights: tuple[Binding, ...]
    routed: tuple[str, ...] = ()

    @property
    def past(self) -> tuple[int, int] | None:
        """Heads n and width D of the earlier keys and values; None if the graph takes none."""
        for tensor in self.inputs:
            if tensor.name == PAST[0]:
                _, heads, _, width = tensor.shape
                return int(heads), int(width)
        return None


@dataclass(frozen=True, slots=True)
class Graphs:
    """The graphs in the order in which they run.

    The scorers and `logits` take the hidden states of the last block. `logits` computes the logits
    of the whole vocabulary; it is None if the bundle cannot generate.
    """

    prologue: GraphInfo
    blocks: tuple[GraphInfo, ...]
    score_labels: GraphInfo
    score_tokens: GraphInfo
    logits: GraphInfo | None = None

    @property
    def continues(self) -> bool:
        """Can every block take the keys and values of earlier tokens?"""
        return all(graph.past for graph in self.blocks)

    def named(self) -> list[tuple[str, GraphInfo]]:
        """Every graph with its name ("prologue", "blocks[0]", ..., "score_tokens", "logits")."""
        blocks = [(f"blocks[{index}]", graph) for index, graph in enumerate(self.blocks)]
        last = [("score_labels", self.score_labels), ("score_tokens", self.score_tokens)]
        if self.logits is not None:
            last.append(("logits", self.logits))
        return [("prologue", self.prologue), *blocks, *last]


@dataclass(frozen=True, slots=True)
class BackwardInfo:
    """The backward graph of a forward graph.

    It takes `GRAD` and inputs of the forward graph, bound to the same tensors. Its outputs are
    gradients, named by `grad_name`.

    Attributes:
        file: its ONNX file.
        of: file of the forward graph.
        inputs: of the backward graph.
        outputs: of the backward graph.
        plain: file of the forward graph in standard operators, which have derivatives, with the
            same inputs and outputs. None if the forward graph has only such operators.
    """

    file: str
    of: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    plain: str | None


@dataclass(frozen=True, slots=True)
class GpuGraphs:
    """Graphs for GPUs, bound to the same tensors as those for the processor.

    Attributes:
        blocks: in the order of `Graphs.blocks`; with operators that providers of GPUs have, and
            matrices multiplied in the form in which they are stored.
        rows: states (R, S, H) and index (M,) -> the rows `states[index]`.
        sum: left and right (R, S, H) -> their sum; None in bundles without backward graphs.
        backward: one graph per kind of block and per scorer, or the reason why there are none.
            Trainables have one copy there.
    """

    blocks: tuple[GraphInfo, ...]
    rows: GraphInfo
    sum: GraphInfo | None = None
    backward: tuple[BackwardInfo, ...] | str = "the edgezo that exported the bundle made none"

    def named(self) -> list[tuple[str, GraphInfo]]:
        """Every graph with its name ("blocks[0]", ..., "rows", "sum")."""
        blocks = [(f"blocks[{index}]", graph) for index, graph in enumerate(self.blocks)]
        last = [("rows", self.rows)]
        if self.sum is not None:
            last.append(("sum", self.sum))
        return [*blocks, *last]

    def derived(self) -> tuple[BackwardInfo, ...]:
        """The backward graphs, if there are any."""
        return () if isinstance(self.backward, str) else self.backward


def grad_name(name: str) -> str:
    """Name of the output that is the gradient of an input."""
    return f"{name}.{GRAD}"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model the bundle was made from; `architecture` is its Hugging Face model_type.

    A sequence of more than `rotary_switch` tokens has other rotary frequencies than shorter ones;
    None: all have the same, up to `max_seq`.
    """

    id: str
    architecture: str
    class_name: str
    task: ModelTask
    hidden_size: int
    vocab_size: int
    max_seq: int
    num_blocks: int
    tied_embeddings: bool
    rotary_switch: int | None = None


@dataclass(frozen=True, slots=True)
class TokenizerInfo:
    """The tokenizer's files and special token ids; `add_bos`: does encoding prepend bos_id?"""

    file: str
    chat_template: str | None
    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int
    unk_id: int | None
    mask_id: int | None
    add_bos: bool


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Size in bytes and SHA-256 (lower-case hex) of one file."""

    bytes: int
    sha256: str
