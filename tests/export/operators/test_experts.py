"""Products with experts against a loop over tokens."""

from __future__ import annotations

import mmap
import sys

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgezo_export.derivatives.pull_back import pull_back
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.experts import emit_expert_linear, emit_routing
from edgezo_export.operators.linear import LinearLowering, LinearSpec
from edgezo_export.quantization.weights_file import write_weights
from edgezo_runtime.bundle.weights import WeightsFile
from tests.export.graph_runner import run

FLOAT = ir.DataType.FLOAT
TOKENS, SLOTS, EXPERTS, WIDTH, OUT = 6, 2, 5, 8, 3
INDEX = np.array([[0, 3], [3, 0], [1, 3], [0, 1], [3, 1], [1, 0]])  # nobody goes to 2 and 4


class Matrices:
    """Experts as a checkpoint; counts how often each is fed."""

    def __init__(self) -> None:
        size = (EXPERTS, OUT, WIDTH)
        self.all = np.random.default_rng(1).normal(size=size).astype(np.float32)

    def state_dict(self):
        return {f"e[{n}].weight": Numpy(own) for n, own in enumerate(self.all)}


class Numpy:
    """What `graph_runner` asks of a tensor of torch."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def numpy(self) -> np.ndarray:
        return self._values


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("by_slot", [False, True])
def test_every_token_meets_its_experts(tmp_path, by_slot, groups):
    draft = GraphBuilder("experts")
    shape = ("t", SLOTS, WIDTH) if by_slot else ("t", WIDTH)
    x = draft.input("x", FLOAT, shape)
    index = draft.input("index", ir.DataType.INT64, ("t", SLOTS))
    routing = emit_routing(draft, index, draft.ints(groups), EXPERTS, SLOTS)
    specs = [LinearSpec((f"e[{n}]",), (OUT,), WIDTH, False, ()) for n in range(EXPERTS)]
    y = emit_expert_linear(draft, LinearLowering(draft, "fp32"), specs, x, routing, by_slot=by_slot)
    draft.output(y, "y", FLOAT, ("t", SLOTS, OUT))
    size = (TOKENS, SLOTS, WIDTH) if by_slot else (TOKENS, WIDTH)
    rows = np.random.default_rng(0).normal(size=size).astype(np.float32)
    matrices = Matrices()
    found = run(draft, {"x": rows, "index": INDEX}, matrices, tmp_path)["y"]
    for token in range(TOKENS):
        for slot in range(SLOTS):
            own = rows[token, slot] if by_slot else rows[token]
            expected = matrices.all[INDEX[token, slot]] @ own
            np.testing.assert_allclose(found[token, slot], expected, rtol=1e-5, atol=1e-6)


WIDE = 1024
"""Inputs and outputs of an expert whose matrix begins on a page of its own in every form."""


def touched(array: np.ndarray) -> float:
    """The share of an array's whole pages that this process has mapped."""
    page = mmap.PAGESIZE
    first = -(-array.ctypes.data // page)
    count = (array.ctypes.data + array.nbytes) // page - first
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(8 * first)
        entries = np.frombuffer(file.read(8 * count), np.uint64)
    return float((entries >> np.uint64(63)).mean())


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which pages are mapped")
@pytest.mark.parametrize("quant", ["int8", "w4", "w8", "fp16", "fp32"])
def test_only_the_experts_that_are_used_are_read(tmp_path, quant):
    draft = GraphBuilder("experts")
    x = draft.input("x", FLOAT, ("t", WIDE))
    index = draft.input("index", ir.DataType.INT64, ("t", SLOTS))
    linears = LinearLowering(draft, quant)
    linears.declare_code()
    routing = emit_routing(draft, index, draft.ints(1), EXPERTS, SLOTS)
    specs = [LinearSpec((f"e[{n}]",), (WIDE,), WIDE, False, ()) for n in range(EXPERTS)]
    y = emit_expert_linear(draft, linears, specs, x, routing, by_slot=False)
    draft.output(y, "y", FLOAT, ("t", SLOTS, WIDE))
    assert set(draft.routed) == {binding.input for binding in draft.weights}
    matrices = np.random.default_rng(1).normal(size=(EXPERTS, WIDE, WIDE)).astype(np.float32)
    names = {f"e[{n}].weight": own for n, own in enumerate(matrices)}
    write_weights(tmp_path / "w", list(draft.planned.values()), Arrays(names))
    weights = WeightsFile(tmp_path / "w")
    one = np.ones((1, 1), np.float32)
    rows = np.random.default_rng(0).normal(size=(TOKENS, WIDE)).astype(np.float32)
    feed = {"x": rows, "index": INDEX, "code": one, "decode": one}
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(a) for name, a in feed.items()}
    stored = {}
    infos = {tensor.name: tensor for tensor in draft.info("").inputs}
    for binding in draft.weights:
        own = infos[binding.input]
        shape = tuple(int(dim) for dim in own.shape)
        stored[binding.input] = weights.view(binding.tensor, own.dtype, shape)
        values[binding.input] = onnxruntime.OrtValue.ortvalue_from_numpy(stored[binding.input])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(
        draft.serialize(), options, providers=["CPUExecutionProvider"]
    )
    weights.drop(0, (tmp_path / "w").stat().st_size)
    taken = {item.name for item in session.get_inputs()}
    session.run_with_ort_values(["y"], {name: values[name] for name in taken})
    shares = [touched(stored[f"e[{number}].weight"]) for number in range(EXPERTS)]
    assert [share == 1 for share in shares] == [True, True, False, True, False], shares
    # pages near a matrix that is read are mapped with it
    assert max(shares[2], shares[4]) < 0.7, shares


@pytest.mark.parametrize(
    ("quant", "tolerance"),
    [("fp32", 1e-5), ("fp16", 2e-3), ("int8", 0.02), ("w8", 0.02), ("w4", 0.2)],
)
def test_gradients_of_used_experts(tmp_path, quant, tolerance):
    """g_x = sum of W' g over the experts of a token; two experts have no tokens."""
    width, out = 32, 16
    draft = GraphBuilder("experts")
    x = draft.input("x", FLOAT, ("t", width))
    index = draft.input("index", ir.DataType.INT64, ("t", SLOTS))
    linears = LinearLowering(draft, quant, dequantize=True)
    routing = emit_routing(draft, index, draft.ints(1), EXPERTS, SLOTS)
    specs = [LinearSpec((f"e[{n}]",), (out,), width, False, ()) for n in range(EXPERTS)]
    y = emit_expert_linear(draft, linears, specs, x, routing, by_slot=False)
    grad = draft.input("grad", FLOAT, ("t", SLOTS, out))
    (found,) = pull_back(draft, {y: grad}, [x])
    draft.output(found, "g", FLOAT, ("t", width))
    matrices = np.random.default_rng(1).normal(size=(EXPERTS, out, width)).astype(np.float32)
    model = Matrices()
    model.all = matrices / np.float32(np.sqrt(width))
    feed = {
        "x": np.random.default_rng(0).normal(size=(TOKENS, width)).astype(np.float32),
        "index": INDEX,
        "grad": np.random.default_rng(2).normal(size=(TOKENS, SLOTS, out)).astype(np.float32),
    }
    made = run(draft, feed, model, tmp_path)["g"]
    expected = np.einsum("tkow,tko->tw", model.all[INDEX], feed["grad"])
    assert np.abs(made - expected).max() < tolerance * np.abs(expected).max()


class Arrays:
    """A checkpoint in memory."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = arrays

    def shape(self, name: str) -> tuple[int, ...]:
        return self._arrays[name].shape

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self._arrays[name][start:stop]
