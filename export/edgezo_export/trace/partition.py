"""Split a traced model into prologue, layers and epilogue.

A node belongs to a layer if the module scope noted by the tracer lies inside that layer. Of the
other nodes, those that depend on a layer are the epilogue, the rest the prologue. Exactly one
tensor, the hidden states, flows from layer to layer; whatever else a layer reads from the prologue
is *context* (rotary tables, padding mask) and is computed once per batch.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgezo_export.errors import UnsupportedModelError

_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True, slots=True)
class Segment:
    """Nodes that become one graph.

    Attributes:
        nodes: in topological order.
        hidden_in: hidden states it starts from; None in the prologue.
        hidden_out: hidden states, or logits, it ends with.
    """

    nodes: tuple[ir.Node, ...]
    hidden_in: ir.Value | None
    hidden_out: ir.Value


@dataclass(frozen=True, slots=True)
class Partition:
    """The parts of a model; `context` holds what layers read from the prologue besides hidden."""

    prologue: Segment
    layers: tuple[Segment, ...]
    epilogue: Segment
    context: tuple[ir.Value, ...]


def partition(model: ir.Model, layers: Sequence[str], prefix: str = "model.") -> Partition:
    """Split `model` at the modules `layers`.

    Args:
        model: a canonical trace (see `edgezo_export.trace.canonical`).
        layers: module paths in execution order.
        prefix: of module paths, from the tracing wrapper.
    Raises:
        UnsupportedModelError: more than one tensor flows between layers, or layers are missing.
    """
    if not layers:
        raise UnsupportedModelError("the model has no repeated layers")
    index = {prefix + path: position for position, path in enumerate(layers)}
    groups: list[list[ir.Node]] = [[] for _ in layers]
    before: list[ir.Node] = []
    after: list[ir.Node] = []
    downstream: set[ir.Value] = set()
    for node in model.graph:
        if node.op_type == "Constant":  # belongs to every reader
            continue
        layer = _layer_of(node, index)
        depends = any(value in downstream for value in node.inputs if value is not None)
        if layer is not None:
            groups[layer].append(node)
        else:
            (after if depends else before).append(node)
        if layer is not None or depends:
            downstream.update(node.outputs)
    for path, nodes in zip(layers, groups, strict=True):
        if not nodes:
            raise UnsupportedModelError(f"layer {path!r} left no node in the trace")
    made_before = _outputs(before)
    ends = [output for output in model.graph.outputs if output.producer() in set(groups[-1])]
    hidden = _entry(groups, made_before, _result(layers[0], groups[0], [*groups[1:], after], ends))
    segments: list[Segment] = []
    context: dict[ir.Value, None] = {}
    for position, (path, nodes) in enumerate(zip(layers, groups, strict=True)):
        result = _result(path, nodes, [*groups[position + 1 :], after], ends)
        reads = [value for node in nodes for value in node.inputs]
        context |= dict.fromkeys(v for v in reads if v in made_before and v is not hidden)
        segments.append(Segment(tuple(nodes), hidden, result))
        hidden = result
    first = segments[0].hidden_in
    if first is None:
        raise UnsupportedModelError("the first layer reads no hidden states")
    return Partition(
        Segment(tuple(before), None, first),
        tuple(segments),
        Segment(tuple(after), hidden, model.graph.outputs[0]),
        tuple(context),
    )


def _result(
    path: str,
    nodes: Sequence[ir.Node],
    later: Sequence[Sequence[ir.Node]],
    ends: Sequence[ir.Value],
) -> ir.Value:
    """Return the one tensor that a layer passes on to the next group of nodes.

    Args:
        path: of the layer.
        nodes: of the layer.
        later: groups of nodes that come after it.
        ends: outputs of the model that the last layer makes; there are some if it has no head.
    Raises:
        UnsupportedModelError: there are more tensors, or other groups read it as well.
    """
    made = _outputs(nodes)
    own = [value for value in ends if value in made]
    crossing = _crossing(nodes, [node for group in later for node in group])
    crossing = list(dict.fromkeys([*crossing, *own]))
    if len(crossing) != 1:
        names = ", ".join(sorted(str(value.name) for value in crossing)) or "nothing"
        raise UnsupportedModelError(
            f"layer {path!r} passes on {names}; it must pass on exactly one tensor"
        )
    shape = crossing[0].shape
    if shape is not None and len(shape) != 3:
        raise UnsupportedModelError(
            f"layer {path!r} passes on {crossing[0].name!r} of shape {shape}; a bundle passes one "
            f"vector per token from block to block"
        )
    if _crossing(nodes, [node for group in later[1:] for node in group]):
        raise UnsupportedModelError(
            f"{crossing[0].name!r} of layer {path!r} is read beyond the next layer"
        )
    return crossing[0]


def _layer_of(node: ir.Node, index: dict[str, int]) -> int | None:
    text = node.metadata_props.get(_SCOPES)
    if not text:
        return None
    scopes: list[str] = ast.literal_eval(text)
    return next((index[scope] for scope in scopes if scope in index), None)


def _outputs(nodes: Iterable[ir.Node]) -> set[ir.Value]:
    return {value for node in nodes for value in node.outputs}


def _crossing(nodes: Sequence[ir.Node], later: Sequence[ir.Node]) -> list[ir.Value]:
    """List what later nodes read of these, but for sizes, which each can compute."""
    made = {value for value in _outputs(nodes) if value.shape is None or len(value.shape)}
    return list(dict.fromkeys(v for node in later for v in node.inputs if v in made))


def _entry(
    groups: Sequence[Sequence[ir.Node]], made_before: set[ir.Value], result: ir.Value
) -> ir.Value:
    """Return the hidden states of the first layer.

    They are the one tensor as wide as its `result` that no other layer reads.
    """
    reads = [
        dict.fromkeys(v for node in nodes for v in node.inputs if v in made_before)
        for nodes in groups
    ]
    others = set().union(*reads[1:]) if len(reads) > 1 else set()
    own = [v for v in reads[0] if v not in others and v.shape is not None and len(v.shape) == 3]
    own = [v for v in own if not isinstance(v.shape[0], int)]  # type: ignore[index]
    if len(own) > 1 and result.shape is not None:
        own = [v for v in own if v.shape is not None and v.shape[-1] == result.shape[-1]]
    if len(own) != 1:
        names = ", ".join(str(value.name) for value in own) or "none"
        raise UnsupportedModelError(f"cannot tell the hidden states of the first layer: {names}")
    return own[0]
