"""Bring a trace into the few forms that the lowering knows.

Unused nodes (mask arithmetic that nothing reads) and aliases are removed, shape arithmetic becomes
constant reshapes (0 keeps a dimension, -1 infers one), sequence splits become Split, x * sigmoid(x)
becomes one operator, and so does a rotary embedding of the first numbers of each head.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from edgezo_export.trace.symbols import DOMAIN
from edgezo_export.trace.values import constant


def canonicalize(model: ir.Model) -> None:
    """Simplify `model` in place; its results stay the same."""
    _remove_unused(model)
    for node in list(model.graph):
        rule = _RULES.get(node.op_type)
        if rule is not None and node.domain == "":
            rule(model.graph, node)
    _remove_unused(model)


def _remove_unused(model: ir.Model) -> None:
    passes.RemoveUnusedNodesPass()(model)


def _replace(graph: ir.Graph, old: ir.Node, new: list[ir.Node], outputs: list[ir.Value]) -> None:
    for before, after in zip(old.outputs, outputs, strict=True):
        if after.shape is None:
            after.shape = before.shape
        if after.dtype is None and before.dtype is not None:
            after.dtype = before.dtype
    for node in new:
        node.metadata_props.update(old.metadata_props)
    graph.insert_before(old, new)
    for before, after in zip(old.outputs, outputs, strict=True):
        before.replace_all_uses_with(after, replace_graph_outputs=True)
    graph.remove(old, safe=True)


def _identity(graph: ir.Graph, node: ir.Node) -> None:
    source = node.inputs[0]
    if source is not None:
        _replace(graph, node, [], [source])


def _reshape(graph: ir.Graph, node: ir.Node) -> None:
    """Shape arithmetic -> [0, 0, n, -1], which needs no other input."""
    source = node.inputs[0]
    value, target = constant(source), constant(node.inputs[1])
    if value is not None and target is not None and 0 not in target:
        _fold(graph, node, value.reshape(target))
        return
    before = None if source is None else source.shape
    after = node.outputs[0].shape
    if before is None or after is None:
        return
    dims: list[int] = []
    for axis, dim in enumerate(after):
        if isinstance(dim, int):
            dims.append(dim)
        elif axis < len(before) and before[axis] == dim:
            dims.append(0)
        else:
            dims.append(-1)
    if dims.count(-1) > 1 or 0 in [d for d in after if isinstance(d, int)]:
        return
    shape = ir.node("Constant", [], {"value_ints": ir.AttrInt64s("value_ints", dims)})
    new = ir.node("Reshape", [source, shape.outputs[0]], num_outputs=1)
    _replace(graph, node, [shape, new], list(new.outputs))


def _sequence_at(graph: ir.Graph, node: ir.Node) -> None:
    """SequenceAt(SplitToSequence(x, size), i) -> output i of Split(x)."""
    sequence = node.inputs[0]
    split = None if sequence is None else sequence.producer()
    if split is None or split.op_type != "SplitToSequence":
        return
    uses = sorted(
        ((int(np.asarray(constant(user.inputs[1]))), user) for user, _ in split.outputs[0].uses()),
        key=lambda pair: pair[0],
    )
    source = split.inputs[0]
    axis = split.attributes["axis"].value
    if source is None or source.shape is None or not isinstance(source.shape[axis], int):
        return
    sizes = [user.outputs[0].shape[axis] for _, user in uses if user.outputs[0].shape is not None]
    if [index for index, _ in uses] != list(range(len(uses))) or sum(sizes) != source.shape[axis]:
        return
    lengths = ir.node("Constant", [], {"value_ints": ir.AttrInt64s("value_ints", sizes)})
    new = ir.node(
        "Split",
        [source, lengths.outputs[0]],
        {"axis": ir.AttrInt64("axis", axis)},
        num_outputs=len(uses),
    )
    for created in (lengths, new):
        created.metadata_props.update(node.metadata_props)
    graph.insert_before(node, [lengths, new])
    for (_, user), output in zip(uses, new.outputs, strict=True):
        output.shape, output.type = user.outputs[0].shape, user.outputs[0].type
        user.outputs[0].replace_all_uses_with(output, replace_graph_outputs=True)


def _cast(graph: ir.Graph, node: ir.Node) -> None:
    """Cast(constant) -> constant."""
    value = constant(node.inputs[0])
    dtype = node.outputs[0].dtype
    if dtype is None and node.op_type == "CastLike" and node.inputs[1] is not None:
        dtype = node.inputs[1].dtype
    if value is None or dtype is None:
        return
    _fold(graph, node, value.astype(dtype.numpy()))


def _fold(graph: ir.Graph, node: ir.Node, value: np.ndarray) -> None:
    tensor = ir.tensor(value)
    new = ir.node("Constant", [], {"value": ir.AttrTensor("value", tensor)})
    new.outputs[0].dtype, new.outputs[0].shape = tensor.dtype, ir.Shape(value.shape)
    _replace(graph, node, [new], list(new.outputs))


def _silu(graph: ir.Graph, node: ir.Node) -> None:
    a, b = node.inputs
    for x, gate in ((a, b), (b, a)):
        producer = None if gate is None else gate.producer()
        if producer is not None and producer.op_type == "Sigmoid" and producer.inputs[0] is x:
            new = ir.node("Silu", [x], domain=DOMAIN, num_outputs=1)
            _replace(graph, node, [new], list(new.outputs))
            return


def _partial_rotary(graph: ir.Graph, node: ir.Node) -> None:
    """Concat(Rotary(x[..., :r]), x[..., r:]) -> Rotary(x) with tables of width r."""
    rotary = None if len(node.inputs) != 2 or node.inputs[0] is None else node.inputs[0].producer()
    if rotary is None or rotary.domain != DOMAIN or rotary.op_type != "Rotary":
        return
    first, rest = _last_axis_slice(rotary.inputs[0]), _last_axis_slice(node.inputs[1])
    if first is None or rest is None or first[0] is not rest[0]:
        return
    x, start, stop = first
    width = None if x.shape is None else x.shape[-1]
    if not isinstance(width, int) or start or stop != rest[1] or rest[2] < width:
        return
    new = ir.node("Rotary", [x, *rotary.inputs[1:]], rotary.attributes, domain=DOMAIN)
    _replace(graph, node, [new], list(new.outputs))


def _last_axis_slice(value: ir.Value | None) -> tuple[ir.Value, int, int] | None:
    """Return (x, start, stop) if a value is x[..., start:stop]."""
    node = None if value is None else value.producer()
    x = None if node is None or node.op_type != "Slice" else node.inputs[0]
    if node is None or x is None or x.shape is None:
        return None
    found = [_reshaped_constant(number) for number in node.inputs[1:]]
    known = [int(own.ravel()[0]) for own in found if own is not None and own.size == 1]
    if not 3 <= len(known) == len(found):
        return None
    start, stop, axis, step = [*known, 1][:4]
    last = len(x.shape) - 1
    return (x, start, stop) if axis in (-1, last) and step == 1 else None


def _reshaped_constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the numbers of a constant, whatever shape and dtype they are brought into."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in ("Cast", "Reshape"):
        value = node.inputs[0]
        node = None if value is None else value.producer()
    return constant(value)


_RULES = {
    "Concat": _partial_rotary,
    "Cast": _cast,
    "CastLike": _cast,
    "Identity": _identity,
    "Reshape": _reshape,
    "SequenceAt": _sequence_at,
    "Mul": _silu,
}
