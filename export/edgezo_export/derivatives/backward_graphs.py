"""The backward graphs of a model: of its blocks and of its scorers.

The backward graph of a block takes the inputs of the block and the gradient of its result. It
recomputes the activations inside the block, so only the hidden states at the entry of every block
have to be stored (Chen et al. 2016, Training deep nets with sublinear memory cost,
arXiv:1604.06174). With int8 weights it is the derivative of the same computation in float32 with
the dequantized weights: rounding of activations has no derivative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgezo_export.derivatives.pull_back import pull_back
from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.block import lower_block
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.graphs.context import Context
from edgezo_export.graphs.head import CHUNK, Head, Tail, after_head, chunk_logits, dot, gathered
from edgezo_export.graphs.segment import SegmentLowering
from edgezo_export.graphs.text_embedding import Pooling, chosen_numbers, embeddings, numbers_at
from edgezo_export.operators.layers import Quant
from edgezo_export.operators.unfused import UNFUSED, UNFUSED_FOR_GPUS
from edgezo_export.schemes.scheme import Scheme
from edgezo_export.trace.partition import Segment
from edgezo_runtime.bundle.manifest import TrainableInfo
from edgezo_runtime.bundle.manifest_types import GRAD, grad_name

_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True, slots=True)
class Backward:
    """Builds the backward graphs of a model; the forward graphs must exist already.

    Attributes:
        layers: traced nodes and path of every layer.
        epilogue: traced nodes after them.
        checkpoint: names and buffers.
        context: tensors of the prologue.
        scheme: the trainables.
        quant: form of the frozen weights.
        hidden_size: H.
        pooling: how states become the embedding of a text; None for a model with a head.
        group_size: inputs of a group of w4 and w8.
        gpu: are the graphs for GPUs? The copies of trainables are one each then.
    """

    layers: Sequence[tuple[Segment, str]]
    epilogue: Segment
    checkpoint: Checkpoint
    context: Context
    scheme: Scheme
    quant: Quant
    hidden_size: int
    pooling: Pooling | None = None
    group_size: int = 32
    gpu: bool = False

    def for_gpus(self) -> Backward:
        """The same for GPUs."""
        return replace(self, gpu=True)

    def block(self, index: int) -> GraphBuilder:
        """hidden, context..., active, past..., trainables..., weights..., grad -> gradients.

        The gradients are those of the hidden states (R, S, H) and of every tensor that trains, with
        its leading axis P.

        Raises:
            UnsupportedModelError: an operator has no derivative.
        """
        draft, infos = self._unfused(index)
        result = draft.withdraw_outputs()[0]
        grad = draft.input(GRAD, _FLOAT, ("rows", "tokens", self.hidden_size))
        names = [draft.local(info.name) for info in infos if info.trains]
        targets = [draft.inputs[name] for name in ("hidden", *names)]
        for target, found in zip(targets, pull_back(draft, {result: grad}, targets), strict=True):
            shape = [dim if isinstance(dim, int) else str(dim) for dim in target.shape or ()]
            draft.output(found, grad_name(str(target.name)), _FLOAT, shape)
        draft.name = "block_backward"
        return draft

    def unfused_block(self, index: int) -> GraphBuilder:
        """The forward graph of a block in operators that have a derivative."""
        return self._unfused(index)[0]

    def _unfused(self, index: int) -> tuple[GraphBuilder, list[TrainableInfo]]:
        segment, module = self.layers[index]
        context = Context(dict(self.context.needed))
        own = (self.checkpoint, context, self.scheme, self.quant, self.hidden_size)
        draft, edits = lower_block(
            segment,
            index,
            module,
            *own,
            group_size=self.group_size,
            unfused=True,
            gpu=self.gpu,
        )
        if context.needed.keys() != self.context.needed.keys():
            raise UnsupportedModelError(f"the derivative of block {index} takes other tables")
        return draft, [info for edit in edits for info in edit.tensors]

    def label_scorer(self) -> GraphBuilder:
        """hidden (R, S, H), positions (T, 2), label_ids (C,), grad (T, C) -> its gradient."""
        draft = self._draft("labels_backward")
        logits = self._label_logits(draft)
        grad = draft.input(GRAD, _FLOAT, ("scored", "labels"))
        return self._finished(draft, logits, grad)

    def unfused_label_scorer(self) -> GraphBuilder:
        """The forward graph of the label scorer in operators that have a derivative."""
        draft = self._draft("score_labels")
        logits = self._label_logits(draft)
        draft.output(logits, "label_logits", _FLOAT, ("scored", "labels"))
        return draft

    def token_scorer(self) -> GraphBuilder:
        """hidden, positions, targets (T,), log_probs (T,), grad (T,) -> gradient of hidden.

            d log p(t) / d logits = onehot(t) - p

        `log_probs` are the results of the forward scorer, from which the normalizer follows. The
        vocabulary is processed in chunks; each adds its share to the gradient of the states.
        """
        draft = self._draft("tokens_backward")
        if self.pooling is not None:
            found = numbers_at(draft, self._embeddings(draft), self.hidden_size)
            _, grad = (draft.input(name, _FLOAT, ("scored",)) for name in ("log_probs", GRAD))
            return self._finished(draft, found, grad)
        lowering, states, head, tail = self._gathered(draft)
        targets = draft.input("targets", ir.DataType.INT64, ("scored",))
        known, grad = (draft.input(name, _FLOAT, ("scored",)) for name in ("log_probs", GRAD))
        last = draft.ints(1)
        column = draft.op("Unsqueeze", grad, last)
        product = dot(draft, states, head, self.quant, targets, None)
        target = after_head(lowering, self.epilogue, tail, product)
        normalizer = draft.op("Sub", target, draft.op("Unsqueeze", known, last))
        (total,) = pull_back(draft, {target: column}, [states])
        falling = draft.op("Neg", column)
        for start in range(0, head.shape[0], CHUNK):
            tokens = range(start, min(start + CHUNK, head.shape[0]))
            product = chunk_logits(draft, states, head, self.quant, tokens, None)
            logits = after_head(lowering, self.epilogue, tail, product)
            likely = draft.op("Exp", draft.op("Sub", logits, normalizer))
            (share,) = pull_back(draft, {logits: draft.op("Mul", likely, falling)}, [states])
            total = draft.op("Add", total, share)
        return self._finished(draft, states, total)

    def _draft(self, name: str) -> GraphBuilder:
        expand = UNFUSED_FOR_GPUS if self.gpu else UNFUSED
        return GraphBuilder(name, expand=expand, gpu=self.gpu)

    def _label_logits(self, draft: GraphBuilder) -> ir.Value:
        if self.pooling is not None:
            return chosen_numbers(draft, self._embeddings(draft))
        lowering, states, head, tail = self._gathered(draft)
        label_ids = draft.input("label_ids", ir.DataType.INT64, ("labels",))
        scores = dot(draft, states, head, self.quant, label_ids, draft.ints(0))
        return after_head(lowering, self.epilogue, tail, scores)

    def _embeddings(self, draft: GraphBuilder) -> ir.Value:
        own = self.epilogue, self.checkpoint, self.hidden_size, self.pooling or "mean"
        return embeddings(draft, *own)

    def _gathered(self, draft: GraphBuilder) -> tuple[SegmentLowering, ir.Value, Head, Tail]:
        return gathered(draft, self.epilogue, self.checkpoint, self.hidden_size)

    def _finished(self, draft: GraphBuilder, value: ir.Value, grad: ir.Value) -> GraphBuilder:
        """Continue from the gradient of a value to that of the hidden states."""
        hidden = draft.inputs["hidden"]
        (found,) = pull_back(draft, {value: grad}, [hidden])
        shape = ("rows", "tokens", self.hidden_size)
        draft.output(found, grad_name("hidden"), _FLOAT, shape)
        return draft
