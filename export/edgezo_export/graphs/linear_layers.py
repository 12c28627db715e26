"""The linear layers of a block: frozen weights, and the edits of the scheme."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.checkpoint import Checkpoint
from edgezo_export.operators.linear import LinearLowering, LinearSpec
from edgezo_export.schemes.block_edits import BlockEdits
from edgezo_export.schemes.scheme import Edit
from edgezo_export.trace.symbols import DOMAIN
from edgezo_export.trace.values import fixed_shape, present


class LinearLayers:
    """Lowers traced linear layers; layers of one form that read the same input become one product.

    Args:
        draft: the graph.
        checkpoint: names of the weights.
        linears: appends frozen linear layers.
        edits: the scheme's edits, None outside blocks.
        value: returns the value of a traced value.

    Attributes:
        shared: has a layer been lowered that runs more than once? Such layers have no edits.
    """

    def __init__(
        self,
        draft: GraphBuilder,
        checkpoint: Checkpoint,
        linears: LinearLowering,
        edits: BlockEdits | None,
        value: Callable[[ir.Value], ir.Value],
    ) -> None:
        self._draft = draft
        self._checkpoint = checkpoint
        self._linears = linears
        self._edits = edits
        self._value = value
        self.shared = False

    def lower(self, node: ir.Node, order: dict[ir.Node, int]) -> dict[ir.Value, ir.Value]:
        """Lower a layer and the layers of the segment that read the same input.

        Args:
            node: the layer.
            order: nodes of the segment, and their places in it.
        Returns:
            Traced outputs and their values.
        """
        x = present(node.inputs[0])
        siblings = [
            user
            for user, index in x.uses()
            if index == 0 and user in order and _same_kind(user, node)
        ]
        siblings.sort(key=order.__getitem__)
        made: dict[ir.Value, ir.Value] = {}
        together: list[tuple[ir.Node, Sequence[Edit]]] = []
        for sibling in siblings if node in siblings else [node]:
            edits = self._edits_of(sibling)
            if any(edit.stage in ("input", "weight") for edit in edits):
                made |= self._emit([(sibling, edits)], x)
            else:
                together.append((sibling, edits))
        by_form: dict[object, list[tuple[ir.Node, Sequence[Edit]]]] = {}
        for layer in together:
            by_form.setdefault(self._linears.form(self._spec([layer[0]])), []).append(layer)
        for layers in by_form.values():
            made |= self._emit(layers, x)
        return made

    def _edits_of(self, node: ir.Node) -> Sequence[Edit]:
        if self._edits is None:
            return ()
        if sum(user.op_type == "Linear" for user, _ in present(node.inputs[1]).uses()) > 1:
            self.shared = True  # an edit acts on the tokens of one input
            return ()
        spec = self._spec([node])
        return self._edits.linear(
            node,
            spec.modules[0],
            (spec.in_features, spec.sizes[0]),
            in_out=spec.in_out,
            bias=bool(spec.biases),
        )

    def _emit(
        self, layers: Sequence[tuple[ir.Node, Sequence[Edit]]], traced_x: ir.Value
    ) -> dict[ir.Value, ir.Value]:
        """Append layers as one product; a layer whose input or weight is edited comes alone."""
        draft, spec = self._draft, self._spec([node for node, _ in layers])
        x = self._value(traced_x)
        edits = layers[0][1]
        leading = draft.op("Shape", x, start=0, end=len(traced_x.shape or ()) - 1)
        if self._edits is not None:
            x = self._edits.apply(edits, "input", x)
        if self._edits is not None and any(edit.stage == "weight" for edit in edits):
            shape = draft.op("Concat", leading, draft.ints(*spec.sizes), axis=0)
            y = self._edits.apply(edits, "weight", x, like=shape)
        else:
            y = self._linears.emit(spec, x, leading)
        bias_last = any(edit.stage == "product" for _, own in layers for edit in own)
        if not bias_last:
            y = self._linears.add_bias(spec, y)
        parts: Sequence[ir.Value] = (y,)
        if len(layers) > 1:
            parts = draft.ops("Split", len(layers), y, draft.ints(*spec.sizes), axis=-1)
        made: dict[ir.Value, ir.Value] = {}
        start = 0
        for (node, own), size, part in zip(layers, spec.sizes, parts, strict=True):
            bias = (spec, (start, start + size)) if bias_last else None
            made[node.outputs[0]] = self._edited(part, own, x, leading, size, bias)
            start += size
        return made

    def _edited(
        self,
        y: ir.Value,
        edits: Sequence[Edit],
        x: ir.Value,
        leading: ir.Value,
        size: int,
        bias: tuple[LinearSpec, tuple[int, int]] | None,
    ) -> ir.Value:
        """Append the edits of a layer's product and output.

        Args:
            y: the product.
            edits: of the layer.
            x: its input.
            leading: int64 vector, the dimensions of x before the last.
            size: outputs of the layer.
            bias: layers and part of their bias, to be added between the edits.
        """
        like = None
        if self._edits is not None and edits:
            like = self._draft.op("Concat", leading, self._draft.ints(size), axis=0)
            y = self._edits.apply(edits, "product", y, x=x, like=like)
        if bias is not None:
            y = self._linears.add_bias(bias[0], y, bias[1])
        if self._edits is not None and edits:
            y = self._edits.apply(edits, "output", y, x=x, like=like)
        return y

    def _spec(self, nodes: Sequence[ir.Node]) -> LinearSpec:
        in_out = bool(_in_out(nodes[0]))
        modules, sizes, biases = [], [], []
        in_features = 0
        for node in nodes:
            weight = present(node.inputs[1])
            shape = fixed_shape(weight)
            in_features, size = shape if in_out else reversed(shape)
            modules.append(self._checkpoint.name(weight).removesuffix(".weight"))
            sizes.append(size)
            if len(node.inputs) > 2:
                biases.append(self._checkpoint.name(present(node.inputs[2])))
        return LinearSpec(tuple(modules), tuple(sizes), in_features, in_out, tuple(biases))


def _in_out(node: ir.Node) -> int:
    attribute = node.attributes.get("in_out")
    return int(attribute.value) if attribute is not None else 0


def _same_kind(a: ir.Node, b: ir.Node) -> bool:
    return (
        a.op_type == b.op_type == "Linear"
        and a.domain == DOMAIN
        and len(a.inputs) == len(b.inputs)
        and _in_out(a) == _in_out(b)
    )
