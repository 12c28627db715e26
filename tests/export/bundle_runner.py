"""Runs the graphs of a bundle one after the other, with nothing but the graph contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from safetensors.numpy import load_file

from edgezo_runtime.bundle.bundle import WEIGHTS_FILE, Bundle
from edgezo_runtime.bundle.manifest_types import GraphInfo

Array = npt.NDArray[np.float32]
_IDENTITY = np.eye(1, dtype=np.float32)


class BundleRunner:
    """One session a graph, weights mapped, nothing optimised."""

    def __init__(self, path: Path) -> None:
        self.bundle = Bundle.open(path)
        self.manifest = self.bundle.manifest
        self.extra: dict[str, Array] = {}
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._weights = load_file(path / WEIGHTS_FILE)

    def prologue(
        self, input_ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64] | None = None
    ) -> tuple[Array, dict[str, npt.NDArray]]:
        """Hidden states (R, S, H) and context."""
        feed = {"input_ids": input_ids} | ({} if mask is None else {"attention_mask": mask})
        names = ["hidden", *self.manifest.context]
        hidden, *context = self.run(self.manifest.graphs.prologue, names, feed)
        return hidden, dict(zip(self.manifest.context, context, strict=True))

    def block(
        self,
        index: int,
        hidden: Array,
        context: Mapping[str, npt.NDArray],
        params: Mapping[str, Array] | None = None,
        code: Array = _IDENTITY,
        decode: Array = _IDENTITY,
        outputs: tuple[str, ...] = (),
    ) -> Array:
        """One block; `params` have the leading axis P, those absent are the bundle's own.

        Further `outputs` are kept in `extra`.
        """
        graph = self.manifest.graphs.blocks[index]
        initial = {name: value[None] for name, value in self.bundle.trainables().items()}
        rows, tokens = hidden.shape[:2]
        feed = {
            "hidden": hidden,
            "code": code,
            "decode": decode,
            "active": np.ones((rows, tokens), np.float32),
            "past_lengths": np.zeros(rows, np.int32),
            **context,
            **initial,
        }
        for tensor in graph.inputs:
            if tensor.name in ("past_key", "past_value"):
                feed[tensor.name] = np.zeros(
                    (rows, tensor.shape[1], 0, tensor.shape[3]), np.float32
                )
        made = self.run(graph, ["hidden_out", *outputs], feed | dict(params or {}))
        self.extra = dict(zip(outputs, made[1:], strict=True))
        return made[0]

    def hidden_states(
        self,
        input_ids: npt.NDArray[np.int64],
        mask: npt.NDArray[np.int64] | None = None,
        params: Mapping[str, Array] | None = None,
    ) -> Iterator[Array]:
        """Output of the prologue and of every block."""
        hidden, context = self.prologue(input_ids, mask)
        yield hidden
        for index in range(len(self.manifest.graphs.blocks)):
            hidden = self.block(index, hidden, context, params)
            yield hidden

    def label_logits(
        self, hidden: Array, positions: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]
    ) -> Array:
        """(T, C)."""
        feed = {"hidden": hidden, "positions": positions, "label_ids": labels}
        return self.run(self.manifest.graphs.score_labels, ["label_logits"], feed)[0]

    def log_probs(
        self, hidden: Array, positions: npt.NDArray[np.int64], targets: npt.NDArray[np.int64]
    ) -> Array:
        """(T,)."""
        feed = {"hidden": hidden, "positions": positions, "targets": targets}
        return self.run(self.manifest.graphs.score_tokens, ["log_probs"], feed)[0]

    def run(
        self, graph: GraphInfo, outputs: list[str], feed: Mapping[str, npt.NDArray]
    ) -> list[npt.NDArray]:
        """Run one graph on those entries of `feed` that the manifest says it takes."""
        session = self._sessions.get(graph.file) or self._open(graph)
        self._sessions[graph.file] = session
        assert [item.name for item in session.get_inputs()] == [t.name for t in graph.inputs]
        assert {item.name for item in session.get_outputs()} == {t.name for t in graph.outputs}
        values = {binding.input: feed[binding.tensor] for binding in graph.trainables}
        shapes = {tensor.name: tensor.shape for tensor in graph.inputs}
        for binding in graph.weights:
            rows = self._weights[binding.tensor][binding.start :].ravel()
            shape = [int(dim) for dim in shapes[binding.input]]
            values[binding.input] = rows[: int(np.prod(shape))].reshape(shape)
        rest = {name: feed[name] for name in shapes if name not in values}
        return list(session.run(outputs, values | rest))

    def _open(self, graph: GraphInfo) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        disabled = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = disabled
        options.add_session_config_entry("session.disable_prepacking", "1")
        content = self.bundle.path(graph.file).read_bytes()
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
