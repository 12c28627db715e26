"""Reverse-mode differentiation of a graph: one vector-Jacobian product per operator.

The nodes are visited in reverse; each adds its share to the gradients of its inputs. A value that
depends on no target has no gradient and costs nothing.

References:
    Baydin et al. 2018, Automatic differentiation in machine learning: a survey, arXiv:1502.05767,
    section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from edgezo_export.derivatives import elementwise, indexing, layout, products, reductions
from edgezo_export.derivatives.adjoint import Adjoint, Rule
from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder

RULES: dict[str, Rule] = {
    **elementwise.RULES,
    **indexing.RULES,
    **layout.RULES,
    **products.RULES,
    **reductions.RULES,
}
"""Operator -> its vector-Jacobian product."""

_CONSTANT = frozenset({"And", "Equal", "Greater", "GreaterOrEqual", "Less", "Range", "Shape"})
"""Operators whose result does not change with a small change of their inputs."""


def pull_back(
    draft: GraphBuilder,
    seeds: Mapping[ir.Value, ir.Value],
    targets: Sequence[ir.Value],
) -> list[ir.Value]:
    """Append the nodes that compute gradients.

    Args:
        draft: the graph.
        seeds: value -> its gradient.
        targets: values whose gradients are wanted; they may depend on each other.
    Returns:
        The gradients of the targets.
    Raises:
        UnsupportedModelError: an operator has no rule, or the result does not depend on a target.
    """
    nodes, shapes = draft.nodes, draft.shapes()
    moving = set(targets)
    for node in nodes:
        if node.op_type not in _CONSTANT and any(value in moving for value in node.inputs):
            moving.update(node.outputs)
    grads: dict[ir.Value, ir.Value] = dict(seeds)
    for node in reversed(nodes):
        outputs = [grads.get(value) for value in node.outputs]
        wanted = [value in moving for value in node.inputs]
        if not any(wanted) or all(grad is None for grad in outputs):
            continue
        if node.op_type in _CONSTANT:
            continue
        rule = RULES.get(node.op_type)
        if rule is None:
            raise UnsupportedModelError(f"operator {node.op_type} has no gradient")
        owed = rule(Adjoint(draft, node, outputs, wanted, shapes))
        for value, wants, grad in zip(node.inputs, wanted, owed, strict=False):
            if value is not None and wants and grad is not None:
                known = grads.get(value)
                grads[value] = grad if known is None else draft.op("Add", known, grad)
    lost = [value.name for value in targets if value not in grads]
    if lost:
        raise UnsupportedModelError(f"the result does not depend on {lost[0]!r}")
    return [grads[value] for value in targets]
