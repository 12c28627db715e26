"""Turn the segments of a partition into the graphs of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx_ir as ir
import torch

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import MICROSOFT, GraphBuilder
from edgezo_export.graphs.attention import (
    AttentionLowering,
    continues,
    emit_rotary,
    emit_rotary_cache,
    turns_heads,
)
from edgezo_export.graphs.embedding import embedding_rows
from edgezo_export.graphs.group_query import Past
from edgezo_export.graphs.linear import LinearLowering, LinearSpec, Quant
from edgezo_export.graphs.scheme_edits import BlockEdits
from edgezo_export.graphs.unfused import PLAIN
from edgezo_export.quantization.weights_file import PlannedTensor
from edgezo_export.schemes.scheme import Edit, Scheme
from edgezo_export.trace.canonical import constant
from edgezo_export.trace.partition import Segment
from edgezo_export.trace.trace import DOMAIN

PREFIX = "model."
"""What the tracing wrapper puts before every parameter name."""

_CACHE = ".rotary_cache"


@dataclass(slots=True)
class Checkpoint:
    """What is known of the parameters a trace refers to.

    Attributes:
        tied: parameter name -> the name it shares its values with.
        buffers: values of non-parameter tensors.
        vocab_size: rows of the embedding.
    """

    tied: Mapping[str, str]
    buffers: Mapping[str, torch.Tensor]
    vocab_size: int

    def name(self, value: ir.Value) -> str:
        """Checkpoint name of a traced initializer; tied parameters have one."""
        name = str(value.name).removeprefix(PREFIX)
        return self.tied.get(name, name)


@dataclass(slots=True)
class Context:
    """Tensors the prologue makes for the blocks: name -> (traced value, derived form)."""

    needed: dict[str, ir.Value] = field(default_factory=dict)

    def tensor(self, value: ir.Value) -> str:
        """Ask for a traced value."""
        self.needed[str(value.name)] = value
        return str(value.name)

    def rotary_cache(self, value: ir.Value) -> str:
        """Ask for the (S, D/2) half of a rotary table."""
        name = f"{value.name}{_CACHE}"
        self.needed[name] = value
        return name


class SegmentLowering:
    """Lowers traced nodes into one graph; subclass-free: what differs is passed in.

    Args:
        draft: the graph.
        checkpoint: names and buffers.
        linears: emits frozen linear layers.
        outside: gives the value of a tensor made by another segment.
        edits: the scheme's edits, None outside blocks.
        rotary_cache: gives the (S, D/2) form of a rotary table.
        quant: form of embeddings.
        past: keys and values of earlier tokens, None where there cannot be any.
    """

    def __init__(
        self,
        draft: GraphBuilder,
        checkpoint: Checkpoint,
        linears: LinearLowering,
        outside: Callable[[ir.Value], ir.Value],
        edits: BlockEdits | None = None,
        rotary_cache: Callable[[ir.Value], ir.Value] | None = None,
        quant: Quant = "fp32",
        past: Past | None = None,
    ) -> None:
        self.draft = draft
        self._checkpoint = checkpoint
        self._linears = linears
        self._outside = outside
        self._edits = edits
        self._quant = quant
        self._values: dict[ir.Value, ir.Value] = {}
        self._attention = AttentionLowering(
            draft, self.value, rotary_cache or self._own_cache, past
        )
        self._order: dict[ir.Node, int] = {}

    def bind(self, traced: ir.Value, value: ir.Value) -> None:
        """Let `value` stand for a traced value."""
        self._values[traced] = value

    def value(self, traced: ir.Value) -> ir.Value:
        """What stands for a traced value here."""
        found = self._values.get(traced)
        if found is None:
            found = self._make(traced)
            self._values[traced] = found
        return found

    def forget(self, nodes: Sequence[ir.Node]) -> None:
        """Let nodes be lowered once more, on other inputs."""
        for node in nodes:
            for output in node.outputs:
                self._values.pop(output, None)

    def run(self, nodes: Sequence[ir.Node]) -> None:
        """Lower nodes in topological order."""
        self._order = {node: index for index, node in enumerate(nodes)}
        for node in nodes:
            if all(output in self._values for output in node.outputs):
                continue
            if node.domain == DOMAIN:
                self._symbol(node)
            elif node.op_type == "Gather" and self._is_embedding(node.inputs[0]):
                self._embedding(node)
            else:
                self._copy(node)

    # --- single values ---

    def _make(self, traced: ir.Value) -> ir.Value:
        array = constant(traced)
        if array is not None:
            return self.draft.constant(array)
        if traced.producer() is not None or not traced.is_initializer():
            return self._outside(traced)
        name = self._checkpoint.name(traced)
        buffer = self._checkpoint.buffers.get(name)
        if buffer is not None:
            return self.draft.constant(buffer.detach().cpu().numpy())
        if traced.const_value is not None and name.startswith("lifted_tensor"):
            return self.draft.constant(traced.const_value.numpy())
        shape = tuple(int(dim) for dim in traced.shape or ())  # type: ignore[arg-type]
        return self.draft.weight(PlannedTensor(name, "F32", shape, (name,), "plain", False))

    def _own_cache(self, traced: ir.Value) -> ir.Value:
        dim = None if traced.shape is None else traced.shape[-1]
        if not isinstance(dim, int):
            raise UnsupportedModelError("rotary table of unknown width")
        return emit_rotary_cache(self.draft, self.value(traced), dim)

    # --- nodes ---

    def _copy(self, node: ir.Node) -> None:
        inputs = [None if value is None else self.value(value) for value in node.inputs]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
            raise UnsupportedModelError(f"node {node.op_type} with a subgraph")
        outputs = self.draft.ops(
            node.op_type, len(node.outputs), *inputs, domain=node.domain, **attributes
        )
        self._values.update(zip(node.outputs, outputs, strict=True))
        if self._edits is not None and node.op_type == "LayerNormalization":
            norm = partial(self.draft.op, node.op_type, inputs[0], **attributes)
            self.bind(node.outputs[0], self._edited_norm(node, outputs[0], norm))

    def _edited_norm(
        self, node: ir.Node, y: ir.Value, norm: Callable[[ir.Value], ir.Value]
    ) -> ir.Value:
        """A norm's output with the scheme's edits.

        Args:
            node: the traced norm; its second input is its weight.
            y: its output.
            norm: makes it with another weight, and without a bias.
        """
        weight = _only(node.inputs[1])
        shape = node.outputs[0].shape
        if self._edits is None or not weight.is_initializer() or shape is None:
            return y
        module = self._checkpoint.name(weight).removesuffix(".weight")
        bias = len(node.inputs) > 2 and node.inputs[2] is not None
        edits = self._edits.norm(module, _width(node), bias)
        if not edits:
            return y
        heads = shape[2] if len(shape) == 4 else 1
        if isinstance(shape[1], int) or not isinstance(heads, int):
            raise UnsupportedModelError(f"norm {module!r}: its output {shape} is not by token")
        ones = self.draft.constant(np.ones(_width(node), np.float32))
        return self._edits.apply(edits, "output", y, x=norm(ones), heads=heads)

    def _symbol(self, node: ir.Node) -> None:
        output = node.outputs[0]
        if node.op_type == "Linear":
            self._linear(node)
        elif node.op_type == "Attention":
            self.bind(output, self._attention.emit(node))
        elif node.op_type == "Rotary":
            # Attention takes the plain heads and turns them itself when it can.
            if not all(turns_heads(user) for user, _ in output.uses()):
                self.bind(output, self._rotary(node))
        elif node.op_type == "Mask":
            pass  # the attention that reads it knows
        elif node.op_type == "Silu":
            x = self.value(_only(node.inputs[0]))
            self.bind(output, self.draft.op("QuickGelu", x, domain=MICROSOFT, alpha=1.0))
        elif node.op_type == "RmsNorm":
            self.bind(output, self._rms_norm(node))
        else:
            raise UnsupportedModelError(f"operator {node.domain}::{node.op_type}")

    def _rms_norm(self, node: ir.Node) -> ir.Value:
        x, gain = (self.value(_only(value)) for value in node.inputs[:2])
        if node.attributes["plus_one"].value:
            gain = self.draft.op("Add", gain, self.draft.scalar(1.0))
        norm = partial(
            self.draft.op,
            "SimplifiedLayerNormalization",
            x,
            axis=-1,
            epsilon=float(node.attributes["epsilon"].value),
            stash_type=1,
        )
        return self._edited_norm(node, norm(gain), norm)

    def _rotary(self, node: ir.Node) -> ir.Value:
        traced, cos, sin = (_only(value) for value in node.inputs)
        head_dim = None if traced.shape is None else traced.shape[-1]
        if not isinstance(head_dim, int):
            raise UnsupportedModelError(f"rotary embedding of {traced.name!r}: width is not fixed")
        x, cos, sin = (self.value(value) for value in (traced, cos, sin))
        return emit_rotary(self.draft, x, cos, sin, head_dim)

    def _linear(self, node: ir.Node) -> None:
        x = _only(node.inputs[0])
        siblings = [
            user
            for user, index in x.uses()
            if index == 0 and user in self._order and _same_kind(user, node)
        ]
        siblings.sort(key=self._order.__getitem__)
        together: list[tuple[ir.Node, Sequence[Edit]]] = []
        for sibling in siblings if node in siblings else [node]:
            edits = self._linear_edits(sibling, x)
            if any(edit.stage in ("input", "weight") for edit in edits):
                self._emit_linears([(sibling, edits)], x)
            else:
                together.append((sibling, edits))
        if together:
            self._emit_linears(together, x)

    def _linear_edits(self, node: ir.Node, x: ir.Value) -> Sequence[Edit]:
        if self._edits is None:
            return ()
        spec = self._spec([node], x)
        return self._edits.linear(
            node,
            spec.modules[0],
            (spec.in_features, spec.sizes[0]),
            in_out=spec.in_out,
            bias=bool(spec.biases),
        )

    def _emit_linears(
        self, layers: Sequence[tuple[ir.Node, Sequence[Edit]]], traced_x: ir.Value
    ) -> None:
        """Linear layers that read the same input, as one; alone if it or the weight is edited."""
        spec = self._spec([node for node, _ in layers], traced_x)
        x = self.value(traced_x)
        edits = layers[0][1]
        leading = self.draft.op("Shape", x, start=0, end=len(traced_x.shape or ()) - 1)
        if self._edits is not None:
            x = self._edits.apply(edits, "input", x)
        if self._edits is not None and any(edit.stage == "weight" for edit in edits):
            shape = self.draft.op("Concat", leading, self.draft.ints(*spec.sizes), axis=0)
            y = self._edits.apply(edits, "weight", x, like=shape)
        else:
            y = self._linears.emit(spec, x, leading)
        bias_last = any(edit.stage == "product" for _, own in layers for edit in own)
        if not bias_last:
            y = self._linears.add_bias(spec, y)
        parts: Sequence[ir.Value] = (y,)
        if len(layers) > 1:
            parts = self.draft.ops("Split", len(layers), y, self.draft.ints(*spec.sizes), axis=-1)
        start = 0
        for (node, own), size, part in zip(layers, spec.sizes, parts, strict=True):
            result = part
            if self._edits is not None and own:
                like = self.draft.op("Concat", leading, self.draft.ints(size), axis=0)
                result = self._edits.apply(own, "product", result, x=x, like=like)
                if bias_last:
                    result = self._linears.add_bias(spec, result, (start, start + size))
                result = self._edits.apply(own, "output", result, x=x, like=like)
            elif bias_last:
                result = self._linears.add_bias(spec, result, (start, start + size))
            start += size
            self.bind(node.outputs[0], result)

    def _spec(self, nodes: Sequence[ir.Node], x: ir.Value) -> LinearSpec:
        in_out = bool(_in_out(nodes[0]))
        modules, sizes, biases = [], [], []
        in_features = 0
        for node in nodes:
            weight = _only(node.inputs[1])
            shape = [int(dim) for dim in weight.shape or ()]  # type: ignore[arg-type]
            in_features, size = shape if in_out else reversed(shape)
            modules.append(self._checkpoint.name(weight).removesuffix(".weight"))
            sizes.append(size)
            if len(node.inputs) > 2:
                biases.append(self._checkpoint.name(_only(node.inputs[2])))
        return LinearSpec(tuple(modules), tuple(sizes), in_features, in_out, tuple(biases))

    def _is_embedding(self, table: ir.Value | None) -> bool:
        if table is None or not table.is_initializer() or table.shape is None:
            return False
        return len(table.shape) == 2 and table.shape[0] == self._checkpoint.vocab_size

    def _embedding(self, node: ir.Node) -> None:
        table, ids = _only(node.inputs[0]), _only(node.inputs[1])
        shape = tuple(int(dim) for dim in table.shape or ())  # type: ignore[arg-type]
        rows = embedding_rows(
            self.draft,
            self._checkpoint.name(table),
            (shape[0], shape[1]),
            self._quant,
            self.value(ids),
        )
        self.bind(node.outputs[0], rows)


def lower_block(
    segment: Segment,
    index: int,
    module: str,
    checkpoint: Checkpoint,
    context: Context,
    scheme: Scheme,
    quant: Quant,
    hidden_size: int,
    *,
    continuing: bool = True,
    plain: bool = False,
) -> tuple[GraphBuilder, list[Edit]]:
    """One layer: hidden, context..., code, decode, active, trainables..., weights... -> hidden_out.

    Where its attention can go on from earlier tokens, it also takes past_key and past_value
    (R, n, P, D) and past_lengths (R,), and gives key and value (R, n, P + S, D).

    Args:
        segment: its traced nodes.
        index: its number.
        module: its path.
        checkpoint: names and buffers.
        context: collects what the prologue has to make.
        scheme: trainables to inject.
        quant: form of the frozen linear layers.
        hidden_size: width of the hidden states.
        continuing: take earlier keys and values, where that is possible.
        plain: in operators that have a derivative, without code and decode.
    """
    draft = GraphBuilder("block", f"{module}.", PLAIN if plain else None)
    hidden = draft.input("hidden", ir.DataType.FLOAT, ("rows", "tokens", hidden_size))
    inputs: dict[str, ir.Value] = {}

    def ask(name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        if name not in inputs:
            inputs[name] = draft.input(name, dtype, shape)
        return inputs[name]

    def outside(value: ir.Value) -> ir.Value:
        axis = batch_dimension(value)
        if axis is not None:  # the block's own rows, not the prologue's
            return draft.op("Squeeze", draft.op("Shape", hidden, start=axis, end=axis + 1))
        if value.dtype is None:
            raise UnsupportedModelError(f"context {value.name!r} of unknown dtype")
        by_position.append(value)
        return ask(context.tensor(value), value.dtype, dynamic_shape(value))

    by_position: list[ir.Value] = []  # context made for the tokens at hand

    def rotary_cache(value: ir.Value) -> ir.Value:
        shape = ("tokens", int(value.shape[-1]) // 2)  # type: ignore[index, arg-type]
        return ask(context.rotary_cache(value), ir.DataType.FLOAT, shape)

    linears = LinearLowering(draft, quant, dequantize=plain)
    if not plain:
        linears.declare_code()
    edits = BlockEdits(draft, scheme, index, module, segment.nodes)
    past = Past(draft, edits) if continuing and continues(segment.nodes) else None
    lowering = SegmentLowering(
        draft, checkpoint, linears, outside, edits, rotary_cache, quant, past
    )
    if segment.hidden_in is None:
        raise UnsupportedModelError(f"block {index} has no hidden states to start from")
    if not any(node.domain == DOMAIN and node.op_type == "Attention" for node in segment.nodes):
        raise UnsupportedModelError(
            f"block {index}: its class computes attention itself, or something else in its place; "
            "only attention that goes through transformers' attention interface can be exported"
        )
    start = edits.apply(edits.entry(hidden_size), "output", hidden)
    lowering.bind(segment.hidden_in, start)
    lowering.run(segment.nodes)
    names = [info.name for info in edits.trainables]
    if len(set(names)) < len(names):
        raise UnsupportedModelError(
            f"block {index} runs some of its layers more than once; shared layers cannot be tuned"
        )
    result = lowering.value(segment.hidden_out)
    draft.output(result, "hidden_out", ir.DataType.FLOAT, ("rows", "tokens", hidden_size))
    if past is not None and by_position:
        own = (module, checkpoint, context, scheme, quant, hidden_size)
        return lower_block(segment, index, *own, continuing=False, plain=plain)
    if past is None:
        edits.no_past()
    else:
        past.declare_outputs()
    return draft, edits.made


def lower_prologue(
    segment: Segment,
    inputs: Sequence[ir.Value],
    checkpoint: Checkpoint,
    context: Context,
    quant: Quant,
    hidden_size: int,
) -> GraphBuilder:
    """input_ids (and attention_mask for encoders) -> hidden and the context the blocks ask for."""
    draft = GraphBuilder("prologue")

    def outside(value: ir.Value) -> ir.Value:
        raise UnsupportedModelError(f"the prologue reads {value.name!r}, which nothing makes")

    lowering = SegmentLowering(
        draft, checkpoint, LinearLowering(draft, "fp32"), outside, quant=quant
    )
    for value in inputs:
        name = str(value.name)
        lowering.bind(value, draft.input(name, ir.DataType.INT64, ("rows", "tokens")))
    lowering.run(segment.nodes)
    hidden = lowering.value(segment.hidden_out)
    draft.output(hidden, "hidden", ir.DataType.FLOAT, ("rows", "tokens", hidden_size))
    for name, value in context.needed.items():
        made = lowering.value(value)
        shape: Sequence[int | str] = dynamic_shape(value)
        if name.endswith(_CACHE):
            width = int(value.shape[-1])  # type: ignore[index, arg-type]
            made, shape = emit_rotary_cache(draft, made, width), ("tokens", width // 2)
        draft.output(made, name, value.dtype or ir.DataType.FLOAT, shape)
    return draft


def batch_dimension(value: ir.Value) -> int | None:
    """0 or 1 where `value` is the number of rows or tokens of the input ids, else None."""
    squeeze = value.producer()
    if squeeze is None or squeeze.op_type != "Squeeze" or squeeze.inputs[0] is None:
        return None
    shape = squeeze.inputs[0].producer()
    if shape is None or shape.op_type != "Shape" or shape.inputs[0] is None:
        return None
    if shape.inputs[0].producer() is not None:
        return None
    return int(shape.attributes["start"].value)


def dynamic_shape(value: ir.Value) -> tuple[int | str, ...]:
    """A traced shape with its two symbols renamed `rows` and `tokens`."""
    dims: list[int | str] = []
    for axis, dim in enumerate(value.shape or ()):
        dims.append(dim if isinstance(dim, int) else ("rows" if axis == 0 else "tokens"))
    return tuple(dims)


def _only(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise UnsupportedModelError("a node without one of its inputs")
    return value


def _in_out(node: ir.Node) -> int:
    attribute = node.attributes.get("in_out")
    return int(attribute.value) if attribute is not None else 0


def _width(norm: ir.Node) -> int:
    """Numbers that a norm brings to one scale."""
    dim = None if norm.outputs[0].shape is None else norm.outputs[0].shape[-1]
    if not isinstance(dim, int):
        raise UnsupportedModelError(f"norm {norm.name!r} of unknown width")
    return dim


def _same_kind(a: ir.Node, b: ir.Node) -> bool:
    return (
        a.op_type == b.op_type == "Linear"
        and a.domain == DOMAIN
        and len(a.inputs) == len(b.inputs)
        and _in_out(a) == _in_out(b)
    )


def logits_tail(nodes: Sequence[ir.Node]) -> tuple[Sequence[ir.Node], ir.Node, Sequence[ir.Node]]:
    """Split the epilogue at the head: nodes before it, the head, element-wise nodes after it."""
    heads = [n for n in nodes if n.domain == DOMAIN and n.op_type == "Linear"]
    if not heads:
        raise UnsupportedModelError("the model has no language-model head")
    position = list(nodes).index(heads[-1])
    return nodes[:position], heads[-1], nodes[position + 1 :]
