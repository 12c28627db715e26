"""Blocks in plain operators, for an onnxruntime whose fused attention does not run them.

onnxruntime-training ended with 1.19, where the fused attention makes NaN of an empty past. The
plain form of a block computes the same in standard operators and float32. It is slower.
"""

from __future__ import annotations

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.bundle.manifest_types import GRAD, GraphInfo
from edgezo_runtime.engine.sessions import runs_fused_attention
from edgezo_runtime.errors import MissingExtraError


def runnable(manifest: Manifest, graph: GraphInfo) -> GraphInfo:
    """Give a block as the installed onnxruntime can run it.

    Raises:
        MissingExtraError: it cannot, and the bundle has no plain form of the block.
    """
    if runs_fused_attention():
        return graph
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
