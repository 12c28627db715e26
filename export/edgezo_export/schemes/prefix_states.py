"""Keys and values that an exported model computes for given tokens; needs onnxruntime."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest import WEIGHTS_FILE
from edgezo_runtime.bundle.manifest_types import PAST, GraphInfo, Graphs
from edgezo_runtime.devices.library import keep_quiet
from edgezo_runtime.errors import MissingExtraError

Float32 = npt.NDArray[np.float32]


class KeysValues:
    """Runs the graphs of a bundle once per set of tokens; its weights must be written.

    Args:
        folder: of the bundle.
        graphs: its graphs.
    """

    def __init__(self, folder: Path, graphs: Graphs) -> None:
        self._folder = folder
        self._graphs = graphs
        self._sessions: dict[str, Any] = {}
        self._made: dict[tuple[int, ...], list[tuple[Float32, Float32]]] = {}

    def of(self, block: int, tokens: tuple[int, ...]) -> tuple[Float32, Float32]:
        """Compute the keys and values (n, N, D) of a block, with an empty prefix.

        Raises:
            MissingExtraError: onnxruntime is not installed.
        Memory:
            The keys and values of all blocks; weights are mapped.
        """
        if tokens not in self._made:
            self._made[tokens] = self._run(tokens)
        return self._made[tokens][block]

    def _run(self, tokens: tuple[int, ...]) -> list[tuple[Float32, Float32]]:
        prologue = self._graphs.prologue
        count = len(tokens)
        feed: dict[str, npt.NDArray[Any]] = {"input_ids": np.array([tokens], np.int64)}
        names = [tensor.name for tensor in prologue.outputs]
        made = dict(zip(names, self._outputs(prologue, names, feed), strict=True))
        one = np.ones((1, 1), np.float32)
        made |= {"code": one, "decode": one, "past_lengths": np.zeros(1, np.int32)}
        result: list[tuple[Float32, Float32]] = []
        for graph in self._graphs.blocks:
            heads, width = graph.past or (0, 0)
            nothing = np.zeros((1, heads, 0, width), np.float32)
            feed = made | dict.fromkeys(PAST, nothing)
            feed |= {binding.tensor: nothing for binding in graph.trainables}
            outputs = self._outputs(graph, ["hidden_out", "key", "value"], feed)
            made["hidden"] = outputs[0]
            assert outputs[1].shape == (1, heads, count, width)
            result.append((outputs[1][0], outputs[2][0]))
        return result

    def _outputs(
        self, graph: GraphInfo, names: list[str], feed: dict[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[Any]]:
        session = self._session(graph.file)
        shapes = {tensor.name: tensor.shape for tensor in graph.inputs}
        values = {binding.input: feed[binding.tensor] for binding in graph.trainables}
        for binding in graph.weights:
            whole = self._weights[binding.tensor]
            shape = tuple(int(dim) for dim in shapes[binding.input])
            rows = whole[binding.start :].reshape(-1)[: int(np.prod(shape))]
            values[binding.input] = rows.reshape(shape)
        values |= {name: feed[name] for name in shapes if name not in values}
        outputs: list[npt.NDArray[Any]] = session.run(names, values)
        return outputs

    def _session(self, file: str) -> Any:
        if file not in self._sessions:
            keep_quiet()
            try:
                import onnxruntime
            except ImportError as error:
                raise MissingExtraError(
                    "the initial values of a prefix are computed by the model, which needs "
                    "onnxruntime; run pip install 'edgezo[cpu,export]'"
                ) from error
            options = onnxruntime.SessionOptions()
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.add_session_config_entry("session.load_model_format", "ONNX")
            self._sessions[file] = onnxruntime.InferenceSession(
                str(self._folder / file), options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[file]

    @cached_property
    def _weights(self) -> dict[str, npt.NDArray[Any]]:
        """Map the tensors of the weights file."""
        path = self._folder / WEIGHTS_FILE
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        mapped = np.memmap(path, np.uint8, "r")
        dtypes = {"F32": np.float32, "F16": np.float16, "I8": np.int8, "U8": np.uint8}
        found: dict[str, npt.NDArray[Any]] = {}
        for name, entry in header.items():
            if not name.startswith("__"):
                start, end = (8 + length + offset for offset in entry["data_offsets"])
                found[name] = mapped[start:end].view(dtypes[entry["dtype"]])
                found[name] = found[name].reshape(entry["shape"])
        return found
