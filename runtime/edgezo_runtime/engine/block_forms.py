"""The form of a block that a device and the installed onnxruntime can run.

onnxruntime-training ended with 1.19, where the fused attention makes NaN of an empty past. The
plain form of a block computes the same in standard operators and float32. It is slower. GPUs run a
form of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.bundle.manifest_types import GRAD, BackwardInfo, GpuGraphs, GraphInfo
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


@dataclass(frozen=True, slots=True)
class StateGraphs:
    """Graphs that work on states on a device.

    Attributes:
        rows: picks rows of states; None where the host does it.
        sum: adds states; None where the host does it.
    """

    rows: GraphInfo | None = None
    sum: GraphInfo | None = None

    @classmethod
    def of(cls, manifest: Manifest, device: Device) -> StateGraphs:
        """Those of a bundle for a device."""
        if device.form != "gpu":
            return cls()
        own = _for_gpus(manifest, device)
        return cls(own.rows, own.sum)


@dataclass(frozen=True, slots=True)
class BackwardForms:
    """The backward graphs of a bundle in the form of a device.

    Attributes:
        infos: the graphs; none, if `reason` says why.
        blocks: the forward graph of each block that they belong to, by file.
        reason: why there are none; None if there are.
    """

    infos: tuple[BackwardInfo, ...]
    blocks: tuple[str, ...]
    reason: str | None

    @classmethod
    def of(cls, manifest: Manifest, form: Literal["processor", "gpu"]) -> BackwardForms:
        """Those of a bundle, in the form of `Device.form`."""
        blocks, found = manifest.graphs.blocks, manifest.backward
        if form == "gpu":
            if isinstance(manifest.gpu, str):
                return cls((), (), manifest.gpu)
            blocks, found = manifest.gpu.blocks, manifest.gpu.backward
        files = tuple(graph.file for graph in blocks)
        return cls((), files, found) if isinstance(found, str) else cls(found, files, None)


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
