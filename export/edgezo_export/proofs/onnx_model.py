"""Scores of onnxruntime with an .onnx_adapter file, on a bundle assembled into one model.

As in models made by Olive, the tensors of the file are optional inputs of the model, which passes
them to the inputs of the blocks. All its other nodes are those of the graphs of the bundle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.onnx_adapter import adapters_of_onnxruntime
from edgezo_runtime.bundle.bundle import WEIGHTS_FILE, Bundle
from edgezo_runtime.bundle.manifest_types import PAST, GraphInfo
from edgezo_runtime.bundle.onnx_file import check_onnx
from edgezo_runtime.bundle.weights import WeightsFile
from edgezo_runtime.devices.cpu import CPU
from edgezo_runtime.engine.block_forms import runnable
from edgezo_runtime.errors import EdgezoError, MissingExtraError, UsageError
from edgezo_runtime.evaluation.parity import Sample, Scores

Array = npt.NDArray[Any]

_OPSET, _IR = 21, 10
_SCORES = "label_scores"
_IDENTITY = "identity"
_FACTORS = {"lora_A": ".lora_A.weight", "lora_B": ".lora_B.weight"}


def onnx_scores(bundle: Bundle, adapter: Path, sample: Sample) -> Scores:
    """Score a bundle with the file as the active adapter, and without it.

    Args:
        bundle: of kind `lora` or `lora-xs`.
        adapter: the .onnx_adapter file.
        sample: the rows.
    Raises:
        MissingExtraError: onnx, or an onnxruntime with adapters, is not installed.
        UsageError: the bundle is of another kind.
        EdgezoError: onnxruntime refuses the file or the model.
    """
    if bundle.manifest.scheme.kind not in ("lora", "lora-xs"):
        raise UsageError(
            f"bundle {bundle.root}: its graphs have no inputs for low-rank factors; name the "
            f"bundle that was tuned"
        )
    ort = adapters_of_onnxruntime()
    model = _Assembly(bundle)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model.serialized(), options)
        active = ort.LoraAdapter()
        active.Load(str(adapter.resolve()))
        run = ort.RunOptions()
        run.add_active_adapter(active)
        feeds = [model.feed(row, sample) for row in sample.rows]
        tuned = [session.run([_SCORES], feed, run)[0][0] for feed in feeds]
        plain = [session.run([_SCORES], feed)[0][0] for feed in feeds]
    except Exception as error:  # onnxruntime's errors have no common public base class
        raise EdgezoError(f"{adapter}: onnxruntime refuses it: {error!s:.300}") from error
    return Scores(np.stack(tuned), np.stack(plain))


class _Assembly:
    """The graphs of a bundle as one model.

    Args:
        bundle: of kind `lora` or `lora-xs`.

    Attributes:
        factors: shape of the inputs that an adapter file fills, by name.
    """

    def __init__(self, bundle: Bundle) -> None:
        try:
            self._onnx = import_module("onnx")
        except ImportError as error:
            raise MissingExtraError(
                "`verify` of an .onnx_adapter needs onnx; run pip install onnx"
            ) from error
        self._bundle = bundle
        self._manifest = bundle.manifest
        self._weights = WeightsFile(bundle.path(WEIGHTS_FILE))
        self._nodes: list[Any] = []
        self._inputs: dict[str, Any] = {}
        self._constants: dict[str, Array] = {}
        self.factors: dict[str, tuple[int, ...]] = {}
        self._infos = {info.name: info for info in self._manifest.trainables}
        self._assemble()

    def serialized(self) -> bytes:
        """Return the content of the ONNX file."""
        helper = self._onnx.helper
        scores = helper.make_tensor_value_info(_SCORES, self._onnx.TensorProto.FLOAT, None)
        graph = helper.make_graph(self._nodes, "assembled", list(self._inputs.values()), [scores])
        inverse = np.float32(1 / self._manifest.scheme.scale)
        constants = {"first_axis": np.zeros(1, np.int64), "inverse_scale": np.asarray(inverse)}
        constants[_IDENTITY] = np.eye(self._manifest.scheme.rank or 1, dtype=np.float32)[None]
        constants |= {name: np.zeros(shape, np.float32) for name, shape in self.factors.items()}
        for name, value in constants.items():
            graph.initializer.append(self._onnx.numpy_helper.from_array(value, name))
        sets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
        made = helper.make_model(graph, opset_imports=sets, ir_version=_IR)
        content: bytes = made.SerializeToString()
        return content

    def feed(self, row: npt.NDArray[np.int32], sample: Sample) -> dict[str, Array]:
        """Return the inputs of the model for one row, without the factors."""
        tokens = len(row)
        active = np.ones((1, tokens), np.float32)
        if sample.answers:
            active[0, :-1] = 0
        own: dict[str, Array] = {
            "input_ids": row[None].astype(np.int64),
            "attention_mask": np.ones((1, tokens), np.int64),
            "active": active,
            "past_lengths": np.zeros(1, np.int32),
            "positions": np.array([[0, tokens - 1]], np.int64),
            "label_ids": np.array(sample.label_ids, np.int64),
            **self._constants,
        }
        return {name: own[name] for name in self._inputs if name not in self.factors}

    def _assemble(self) -> None:
        graphs = self._manifest.graphs
        made = self._append(graphs.prologue, "in", {})
        context = {name: made[name] for name in self._manifest.context}
        hidden = made["hidden"]
        for index, own in enumerate(runnable(self._manifest, CPU)):
            known = {"hidden": hidden, **context, **self._adapted(own, index)}
            hidden = self._append(own, f"b{index}", known)[own.outputs[0].name]
        scored = self._append(graphs.score_labels, "out", {"hidden": hidden})
        last = scored[graphs.score_labels.outputs[0].name]
        self._node("Identity", [last], _SCORES)

    def _adapted(self, graph: GraphInfo, index: int) -> dict[str, str]:
        """Connect the trainable inputs of a block: (in, rank) becomes (1, rank, in)."""
        known: dict[str, str] = {}
        for number, binding in enumerate(graph.trainables):
            info = self._infos[binding.tensor]
            if info.role == "lora_R":  # the file's B is B R
                known[binding.input] = _IDENTITY
                continue
            name = info.module + _FACTORS[info.role]
            self.factors[name] = (info.shape[1], info.shape[0])
            self._take(name, "float32", self.factors[name])
            last = self._node("Transpose", [name], f"b{index}/transposed{number}", perm=[1, 0])
            if (
                info.role == "lora_B"
            ):  # the file's B includes the scale that the block multiplies by
                last = self._node("Mul", [last, "inverse_scale"], f"b{index}/unscaled{number}")
            copies = f"b{index}/copies{number}"
            known[binding.input] = self._node("Unsqueeze", [last, "first_axis"], copies)
        return known

    def _append(self, graph: GraphInfo, prefix: str, known: Mapping[str, str]) -> dict[str, str]:
        """Append the nodes of a graph; return the names of its outputs in the model."""
        path = self._bundle.path(graph.file)
        data = path.read_bytes()
        check_onnx(data, str(path))
        content = self._onnx.load_model_from_string(data)
        names = dict(known)
        for tensor in graph.inputs:
            if tensor.name in names:
                continue
            names[tensor.name] = self._shared(tensor.name, tensor.dtype, tensor.shape, prefix)
        for binding in graph.weights:
            tensor = next(t for t in graph.inputs if t.name == binding.input)
            shape = tuple(int(dim) for dim in tensor.shape)
            view = self._weights.view(binding.tensor, tensor.dtype, shape, binding.start)
            self._constants[names[binding.input]] = view
        for constant in content.graph.initializer:
            value = self._onnx.numpy_helper.to_array(constant)
            name = names[constant.name] = f"{prefix}/{constant.name}"
            tensor = self._onnx.numpy_helper.from_array(value, name)
            self._node("Constant", [], name, value=tensor)
        for node in content.graph.node:
            copy = self._onnx.NodeProto()
            copy.CopyFrom(node)
            _rename_node(copy, names, prefix)
            self._nodes.append(copy)
        return {tensor.name: names[tensor.name] for tensor in graph.outputs if tensor.name in names}

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _shared(self, name: str, dtype: str, shape: Iterable[int | str], prefix: str) -> str:
        """Declare the input of the model for that of a graph: shared by all blocks, or its own."""
        if name in ("code", "decode"):
            self._constants[name] = np.ones((1, 1), np.float32)
        elif name in PAST:
            _, heads, _, width = shape
            name = f"{name} {heads} {width}"
            self._constants[name] = np.empty((1, int(heads), 0, int(width)), np.float32)
        elif all(isinstance(dim, int) for dim in shape):  # a weight
            name = f"{prefix}/{name}"
        self._take(name, dtype, shape)
        return name

    def _take(self, name: str, dtype: str, shape: Iterable[int | str]) -> None:
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        dims = [dim if isinstance(dim, int) else None for dim in shape]
        self._inputs[name] = self._onnx.helper.make_tensor_value_info(name, kind, dims)


def _rename_node(node: Any, names: dict[str, str], prefix: str) -> None:
    """Rename a node, and the nodes of the graphs inside it, for the model."""
    node.name = f"{prefix}/{node.name}"
    for ends in (node.input, node.output):
        ends[:] = [_renamed(end, names, prefix) for end in ends]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
                value.name = _renamed(value.name, names, prefix)
            for inner in graph.node:
                _rename_node(inner, names, prefix)


def _renamed(end: str, names: dict[str, str], prefix: str) -> str:
    """Return the name of a value in the model; an omitted value has none."""
    return names.setdefault(end, f"{prefix}/{end}") if end else end
