"""Runs a graph under construction on the weights of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from safetensors.numpy import load_file

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.quantization.weights_file import write_weights


class StateDict:
    """A model's parameters as a checkpoint."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def read(self, name: str) -> npt.NDArray[np.float32]:
        return self._tensors[name]

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        return self._tensors[name][start:stop]


def run(
    draft: GraphBuilder,
    feed: Mapping[str, npt.NDArray],
    model: torch.nn.Module | None = None,
    folder: Path | None = None,
) -> dict[str, npt.NDArray]:
    """Outputs of a graph by name.

    Args:
        draft: the graph.
        feed: its inputs, without the weights.
        model: has the weights, if the graph takes any.
        folder: an empty place for the weights file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    disabled = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.graph_optimization_level = disabled
    session = onnxruntime.InferenceSession(
        draft.serialize(), options, providers=["CPUExecutionProvider"]
    )
    values = dict(feed)
    if model is not None and folder is not None:
        path = folder / "w.safetensors"
        write_weights(path, list(draft.planned.values()), StateDict(model))
        weights = load_file(path)
        shapes = {str(value.name): value.shape for value in draft.inputs.values()}
        for binding in draft.weights:
            rows = weights[binding.tensor][binding.start :].ravel()
            shape = [int(dim) for dim in shapes[binding.input] or ()]
            values[binding.input] = rows[: int(np.prod(shape))].reshape(shape)
    names = [output.name for output in session.get_outputs()]
    taken = {item.name for item in session.get_inputs()}
    found = session.run(names, {name: value for name, value in values.items() if name in taken})
    return dict(zip(names, found, strict=True))
