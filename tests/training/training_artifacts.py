"""Artifacts for onnxruntime-training: the last blocks and the label scorer as one model.

They are written from a bundle and need onnxruntime-training and onnx, not torch. The training model
holds forward pass, loss and gradients, the checkpoint the tensors that train, the optimizer model
AdamW; see https://onnxruntime.ai/docs/api/python/on_device_training/.
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
from tests.training.ort_training import TrainingFiles, package

IR_VERSION = 10
OPSET = 21


def write_training_artifacts(bundle: Bundle, first_block: int, folder: Path) -> TrainingFiles:
    """Write the artifacts of the blocks from `first_block` on.

    Args:
        bundle: the bundle.
        first_block: number of the first block that trains.
        folder: where to write; made if it does not exist.
    Returns:
        The artifacts.
    Raises:
        ModuleNotFoundError: onnxruntime-training is not installed.
    """
    package()
    artifacts: Any = importlib.import_module("onnxruntime.training.artifacts")
    blocks: Any = importlib.import_module("onnxruntime.training.onnxblock")
    model, trained = compose_last_blocks(bundle, first_block)
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.generate_artifacts(
        model,
        requires_grad=trained,
        frozen_params=[],
        loss=blocks.loss.CrossEntropyLoss(reduction="sum"),
        optimizer=artifacts.OptimType.AdamW,
        artifact_directory=folder,
    )
    files = TrainingFiles(folder)
    optimizer = files.paths()[2]
    model = onnx.load(optimizer)
    model.ir_version = IR_VERSION  # the old runtime does not read the version of a new onnx
    onnx.save(model, optimizer)
    return files


def compose_last_blocks(bundle: Bundle, first_block: int) -> tuple[onnx.ModelProto, list[str]]:
    """hidden, context..., active, past..., positions, label_ids -> label_logits.

    All blocks take the same past, (R, n, P, D); it is empty, since whole sequences have none.

    Returns:
        The model, and the names of its initializers that train, each (1, *shape).
    """
    manifest = bundle.manifest
    assert not isinstance(manifest.backward, str), manifest.backward
    unfused = {info.of: info for info in manifest.backward}
    made = _Assembly(bundle)
    for index, graph in enumerate(manifest.graphs.blocks):
        if index >= first_block:
            made.append(f"block_{index}", graph, unfused[graph.file])
    made.append("scorer", manifest.graphs.score_labels, unfused[manifest.graphs.score_labels.file])
    trains = {info.name for info in manifest.trainables if info.trains}
    return made.model(), [name for name in made.trainables if name in trains]


class _Assembly:
    """A model under construction: unfused graphs one after the other, with their weights."""

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
        """Append a graph that takes the result of the last one."""
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
                assert self._inputs.setdefault(value.name, value) == value, "one shape per input"
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
        """Return the appended graphs as one; its output is the result of the last graph."""
        assert self._last is not None
        graph = onnx.helper.make_graph(
            self._nodes,
            "last_blocks",
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
