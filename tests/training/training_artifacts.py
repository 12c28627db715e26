"""Artifacts for onnxruntime-training: last blocks and label scorer as one model that trains.

They are made of a bundle where onnxruntime-training and onnx are installed; torch is not needed.
The training model holds forward pass, loss and gradients, the checkpoint the tensors that train,
the optimizer model AdamW; see https://onnxruntime.ai/docs/api/python/on_device_training/.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.manifest import WEIGHTS_FILE
from edgezo_runtime.bundle.manifest_types import BackwardInfo, GraphInfo
from edgezo_runtime.bundle.weights import WeightsFile
from edgezo_runtime.errors import UsageError
from tests.training.ort_training import TrainingFiles, package

IR_VERSION = 10
OPSET = 21


def write_training_artifacts(bundle: Bundle, first_block: int, folder: Path) -> TrainingFiles:
    """Make the artifacts of the blocks from `first_block` on.

    Args:
        bundle: the bundle.
        first_block: the tail's first block.
        folder: where they go; made if it does not exist.
    Returns:
        Where they are.
    Raises:
        UsageError: the bundle has no graphs with derivatives, or no such block, or blocks of the
            tail differ in the shape of what they take.
        MissingExtraError: onnxruntime-training is not installed.

    Memory:
        The tail's weights several times over, and the embedding's.
    """
    package()
    artifacts: Any = importlib.import_module("onnxruntime.training.artifacts")
    blocks: Any = importlib.import_module("onnxruntime.training.onnxblock")
    model, trained = compose_tail(bundle, first_block)
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.generate_artifacts(
        model,
        requires_grad=trained,
        frozen_params=[],
        loss=blocks.loss.CrossEntropyLoss(reduction="sum"),
        optimizer=artifacts.OptimType.AdamW,
        artifact_directory=folder,
    )
    files = TrainingFiles.of(folder)
    optimizer = files.paths()[2]
    model = onnx.load(optimizer)
    model.ir_version = IR_VERSION  # a new onnx writes what the old runtime does not read
    onnx.save(model, optimizer)
    return files


def compose_tail(bundle: Bundle, first_block: int) -> tuple[onnx.ModelProto, list[str]]:
    """The tail forward: hidden, context..., active, past..., positions, label_ids -> label_logits.

    All blocks take the same past, (R, n, P, D): it is empty, since whole sequences follow nothing.

    Returns:
        The model, and the names of its initializers that train, each (1, *shape).
    """
    manifest = bundle.manifest
    if isinstance(manifest.backward, str):
        raise UsageError(f"the bundle has no graphs with derivatives: {manifest.backward}")
    if not 0 <= first_block < len(manifest.graphs.blocks):
        raise UsageError(f"no block {first_block}: there are {len(manifest.graphs.blocks)}")
    plain = {info.of: info for info in manifest.backward}
    tail = _Tail(bundle)
    for index, graph in enumerate(manifest.graphs.blocks):
        if index >= first_block:
            tail.append(f"block_{index}", graph, plain[graph.file])
    tail.append("scorer", manifest.graphs.score_labels, plain[manifest.graphs.score_labels.file])
    trains = {info.name for info in manifest.trainables if info.trains}
    return tail.model(), [name for name in tail.trainables if name in trains]


class _Tail:
    """A model under construction: plain graphs behind each other, weights inside."""

    def __init__(self, bundle: Bundle) -> None:
        self.trainables: list[str] = []
        self._bundle = bundle
        self._weights = WeightsFile(bundle.path(WEIGHTS_FILE))
        self._values = bundle.trainables()
        self._inputs: dict[str, onnx.ValueInfoProto] = {}
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._last: onnx.ValueInfoProto | None = None

    def append(self, place: str, graph: GraphInfo, info: BackwardInfo) -> None:
        """Add a graph that takes what the last one gave."""
        assert info.plain is not None
        proto = onnx.load_model_from_string(self._bundle.path(info.plain).read_bytes()).graph
        names = {"": ""}
        weights = {binding.input: binding for binding in graph.weights}
        trainables = {binding.input: binding.tensor for binding in graph.trainables}
        shapes = {tensor.name: (tensor.dtype, tensor.shape) for tensor in info.inputs}
        for value in proto.input:
            if value.name in weights:
                binding = weights[value.name]
                dtype, shape = shapes[value.name]
                fixed = tuple(int(dim) for dim in shape)
                array = self._weights.view(binding.tensor, dtype, fixed, binding.start)
                names[value.name] = self._initializer(f"{place}.{value.name}", array)
            elif value.name in trainables:
                tensor = trainables[value.name]
                self.trainables.append(tensor)
                names[value.name] = self._initializer(tensor, self._values[tensor][None])
            elif value.name == "hidden" and self._last is not None:
                names[value.name] = self._last.name
            else:
                names[value.name] = value.name
                if self._inputs.setdefault(value.name, value) != value:
                    raise UsageError(
                        f"{place} takes '{value.name}' in another shape than a block before it; "
                        f"training artifacts need one shape: choose a later first block"
                    )
        for tensor in proto.initializer:
            names[tensor.name] = self._initializer(
                f"{place}.{tensor.name}", numpy_helper.to_array(tensor)
            )
        for node in proto.node:
            own = onnx.NodeProto()
            own.CopyFrom(node)
            own.name = f"{place}.{node.name}"
            for value_names, known in ((own.input, True), (own.output, False)):
                renamed = [names[n] if known else f"{place}.{n}" if n else "" for n in value_names]
                if not known:
                    names.update(zip(value_names, renamed, strict=True))
                del value_names[:]
                value_names.extend(renamed)
            self._nodes.append(own)
        self._last = onnx.ValueInfoProto()
        self._last.CopyFrom(proto.output[0])
        self._last.name = names[proto.output[0].name]

    def model(self) -> onnx.ModelProto:
        """What was appended, the result of the last graph being the output."""
        assert self._last is not None
        graph = onnx.helper.make_graph(
            self._nodes,
            "tail",
            list(self._inputs.values()),
            [self._last],
            list(self._initializers.values()),
        )
        opsets = [onnx.helper.make_opsetid("", OPSET)]
        return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)

    def _initializer(self, name: str, array: npt.NDArray[Any]) -> str:
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name
