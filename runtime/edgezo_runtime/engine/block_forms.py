"""The form of a block that a device and the installed onnxruntime can run.

onnxruntime-training ended with 1.19, where the fused attention makes NaN of an empty past. The
plain form of a block computes the same in standard operators and float32. It is slower. GPUs run a
form of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.bundle.manifest_types import GRAD, GpuGraphs, GraphInfo
from edgezo_runtime.devices.device import Device
from edgezo_runtime.devices.library import runs_fused_attention
from edgezo_runtime.errors import MissingExtraError, UsageError


def runnable(manifest: Manifest, device: Device) -> Sequence[GraphInfo]:
    """Give the blocks as the device and the installed onnxruntime can run them.

    Raises:
        MissingExtraError: onnxruntime cannot, and the bundle has no plain form of a block.
        UsageError: the bundle has no form for the device.
    """
    if device.form == "gpu":
        return _for_gpus(manifest, device).blocks
    if runs_fused_attention():
        return manifest.graphs.blocks
    return [_plain(manifest, graph) for graph in manifest.graphs.blocks]


def row_picker(manifest: Manifest, device: Device) -> GraphInfo | None:
    """The graph that picks rows of states on the device; None where the host does it."""
    return _for_gpus(manifest, device).rows if device.form == "gpu" else None


def _for_gpus(manifest: Manifest, device: Device) -> GpuGraphs:
    if isinstance(manifest.gpu, str):
        raise UsageError(
            f"the bundle ({manifest.quant}) does not run on the device {device.name}: "
            f"{manifest.gpu}; set `device` to cpu, or run 'edgezo export --quant w8 --force' (or "
            f"w4, fp32) for a bundle that does"
        )
    return manifest.gpu


def _plain(manifest: Manifest, graph: GraphInfo) -> GraphInfo:
    """The plain form of a block.

    Raises:
        MissingExtraError: there is none.
    """
    infos = () if isinstance(manifest.backward, str) else manifest.backward
    info = next((info for info in infos if info.of == graph.file), None)
    if info is None or info.plain is None:
        raise MissingExtraError(
            "the installed onnxruntime cannot run the attention of bundles, and this bundle has no "
            "plain form of it; run pip install 'onnxruntime>=1.20'"
        )
    inputs = tuple(tensor for tensor in info.inputs if tensor.name != GRAD)
    names = {tensor.name for tensor in inputs}
    return GraphInfo(
        file=info.plain,
        inputs=inputs,
        outputs=graph.outputs,
        trainables=tuple(binding for binding in graph.trainables if binding.input in names),
        weights=tuple(binding for binding in graph.weights if binding.input in names),
        routed=tuple(name for name in graph.routed if name in names),
    )
