"""Which nodes of an ONNX graph compute nothing but sizes and positions."""

from __future__ import annotations

from edgezo_runtime.bundle.onnx_file import node_ends

_SOURCES = frozenset({"Shape", "Size", "Constant"})


def size_nodes(content: bytes) -> frozenset[str]:
    """Names of the nodes whose inputs are constants, or come from shapes of values alone.

    Args:
        content: of a file that `check_onnx` took.
    """
    nodes, constants = node_ends(content)
    small = set(constants)
    found: set[str] = set()
    for node in nodes:  # in an order in which inputs come before their readers
        if node.operator in _SOURCES or all(name in small for name in node.inputs if name):
            small.update(node.outputs)
            found.add(node.name)
    return frozenset(found)
