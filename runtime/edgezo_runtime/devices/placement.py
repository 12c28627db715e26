"""Which nodes of a graph a GPU leaves to the processor, and whether it may."""

from __future__ import annotations

from typing import Any

from edgezo_runtime.bundle.size_nodes import size_nodes
from edgezo_runtime.devices.device import Opening
from edgezo_runtime.errors import UnplacedNodeError

RECORD = "session.record_ep_graph_assignment_info"
"""The setting by which a session remembers who runs what."""

_PROCESSOR = "CPUExecutionProvider"


def check_placement(session: Any, graph: Opening, device: str) -> int:
    """Refuse a graph that would compute anything but sizes on the processor.

    Shapes and positions are computed there from the shapes of values, without a copy from the
    device.

    Args:
        session: of onnxruntime, opened with `RECORD`.
        graph: what was opened.
        device: its name, for the message.
    Returns:
        The number of nodes that compute sizes on the processor.
    Raises:
        UnplacedNodeError: another node is there.
    """
    left = [
        node
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == _PROCESSOR
        for node in part.get_nodes()
    ]
    sizes = size_nodes(graph.content) if left else frozenset()
    odd = [node for node in left if node.name not in sizes]
    if odd:
        raise UnplacedNodeError(
            f"{graph.where}: the device {device} cannot run node {odd[0].name!r:.80} "
            f"({odd[0].op_type}) and {len(odd) - 1} more; run 'edgezo export --force' for graphs "
            f"that it can run, or take `device` cpu"
        )
    return len(left)
