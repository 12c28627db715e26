"""Opens a session of onnxruntime, with what all devices have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from edgezo_runtime.devices.device import Opening


def open_session(
    ort: Any,
    graph: Opening,
    settings: Mapping[str, str],
    prepare: Callable[[Any], None] = lambda options: None,
    providers: Any = None,
) -> Any:
    """Open a graph.

    Args:
        ort: the module onnxruntime.
        graph: what to open.
        settings: further entries of the session's configuration.
        prepare: given the session's options.
        providers: of onnxruntime; None where `prepare` chooses a device.
    Raises:
        Exception: what onnxruntime raises.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Exported graphs are final; optimizing would fold weights into float32 copies.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # A pattern keeps one slab for every shape it has seen; the arena alone needs 20 MB less.
    options.enable_mem_pattern = False
    # Left to itself onnxruntime takes some bytes for its own format, which is not checked here.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    for name, value in settings.items():
        options.add_session_config_entry(name, value)
    # Kernels run on the thread that calls them; see `engine/scheduler.py`. A global pool would do
    # as well, but then every other session of the process would have to use it.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    if graph.in_order:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    prepare(options)
    return ort.InferenceSession(graph.content, options, providers=providers)


def packaged_graph(name: str) -> Opening:
    """A graph that comes with the runtime, by the name of its file."""
    content = files("edgezo_runtime.devices").joinpath(name).read_bytes()
    return Opening(content, name, in_order=False)
