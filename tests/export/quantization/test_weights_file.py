"""The weights file against safetensors' own reader, plain numpy and torch."""

from __future__ import annotations

import hashlib
import os
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from edgezo_export.quantization import weights_file as weights_module
from edgezo_export.quantization.chunk_threads import MOST
from edgezo_export.quantization.group_codes import round_groups, round_groups_8bit
from edgezo_export.quantization.quantize import NonFiniteWeightError
from edgezo_export.quantization.rotation import rotate_rows
from edgezo_export.quantization.weights_file import read_float32, read_tables, write_weights
from edgezo_export.quantization.weights_plan import (
    PADDING_PREFIX,
    PlannedTensor,
    plan_codes,
    plan_embedding,
    plan_linear,
)
from edgezo_runtime.errors import EdgezoError
from tests.export.planned_weights import PLAN, checkpoint


def reference_int8(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(out, in) -> int8 (in, out) and scales (out,), with torch in float64."""
    tensor = torch.from_numpy(matrix).double()
    scales = (tensor.abs().amax(dim=1) / 127).float()
    quantized = torch.round(torch.from_numpy(matrix) / scales[:, None]).to(torch.int8)
    return quantized.T.numpy(), scales.numpy()


def rotated(matrix: np.ndarray) -> np.ndarray:
    """(out, in) with every 16 inputs rotated, in float64."""
    h2 = np.array([[1, 1], [1, -1]])
    h16 = np.kron(np.kron(h2, h2), np.kron(h2, h2)) / 4
    return (matrix.astype(np.float64) @ np.kron(np.eye(2), h16)).astype(np.float32)


@pytest.fixture(params=["whole", "chunks"])
def chunk_size(request, monkeypatch):
    """Everything in one chunk, then chunks that divide nothing evenly."""
    if request.param == "chunks":
        monkeypatch.setattr(weights_module, "_CHUNK_BYTES", 7 * 4 * 32)
        monkeypatch.setattr(weights_module, "_STRIP_BYTES", 11 * 32)


@pytest.mark.usefixtures("chunk_size")
def test_values_as_safetensors_reads_them(tmp_path):
    source = checkpoint()
    write_weights(tmp_path / "w.safetensors", PLAN, source)
    found = load_file(tmp_path / "w.safetensors")
    found = {name: array for name, array in found.items() if not name.startswith(PADDING_PREFIX)}
    a = source.arrays
    qkv, qkv_scale = reference_int8(rotated(np.concatenate([a["q"], a["k"], a["v"]])))
    conv, conv_scale = reference_int8(rotated(np.ascontiguousarray(a["conv1d"].T)))
    embed, embed_scale = reference_int8(a["embed"])
    codes = round_groups(rotate_rows(np.concatenate([a["q"], a["v"]])), 16)
    eight, eight_scale = round_groups_8bit(np.ascontiguousarray(a["conv1d"].T), 32)
    expected = {
        "e": (embed.T.astype(np.int16) + 128).astype(np.uint8),
        "e.scale": embed_scale[:, None],
        "n": a["norm"],
        "qkv": qkv,
        "qkv.scale": qkv_scale,
        "qk.bias": np.concatenate([a["q.bias"], a["k.bias"]]),
        "qk": np.concatenate([a["q"], a["k"]]).T,
        "q.t": a["q"].T,
        "q.same": a["q"],
        "c": conv,
        "c.scale": conv_scale,
        "c.plain": a["conv1d"],
        "s": a["scalar"],
        "q4": codes.packed(),
        "m4.multiplier": codes.multipliers,
        "m4.scale": codes.scales,
        "q8": eight,
        "q8.scale": eight_scale,
        "half": np.concatenate([a["q"], a["k"]]).T.astype(np.float16),
        "n.half": a["norm"].astype(np.float16),
    }
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        if name in ("qkv", "c"):  # the order of sums in the rotation may tip a rounding
            difference = np.abs(found[name].astype(int) - array)
            assert difference.max() <= 1, name
            assert np.count_nonzero(difference) <= 0.001 * array.size, name
            continue
        if name in ("qkv.scale", "c.scale"):
            np.testing.assert_allclose(found[name], array, rtol=1e-6, err_msg=name)
            continue
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_places_digest_and_alignment(tmp_path):
    path = tmp_path / "w.safetensors"
    large = PlannedTensor("large", "F32", (1000, 32), ("embed",), "plain", False)
    plan = [PLAN[2], large, *PLAN[3:]]
    source = checkpoint()
    written = write_weights(path, plan, source)
    content = path.read_bytes()
    assert written.size_bytes == len(content)
    assert written.sha256 == hashlib.sha256(content).hexdigest()
    assert list(written.tensors) == [entry.name for entry in plan]
    place = written.tensors["large"]
    assert place.offset % 4096 == 0
    assert all(other.offset % 64 == 0 for other in written.tensors.values())
    assert int.from_bytes(content[:8], "little") % 4096 == 4096 - 8
    values = np.frombuffer(content, np.float32, place.length // 4, place.offset)
    np.testing.assert_array_equal(values.reshape(place.shape), source.arrays["embed"])
    with safe_open(path, "numpy") as file:  # refuses holes, overlaps and trailing bytes
        assert set(written.tensors) < set(file.keys())


def test_same_plan_gives_the_same_bytes(tmp_path):
    first = write_weights(tmp_path / "a", PLAN, checkpoint())
    second = write_weights(tmp_path / "b", PLAN, checkpoint())
    assert first == second
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_progress_ends_at_the_total(tmp_path):
    seen = []
    write_weights(
        tmp_path / "w", PLAN, checkpoint(), lambda done, total: seen.append((done, total))
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] > 0


@pytest.mark.usefixtures("chunk_size")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_counted_and_named(tmp_path, bad):
    for name in sorted({source for tensor in PLAN for source in tensor.sources} - {"scalar"}):
        source = checkpoint()
        values = source.arrays[name]
        values.flat[[0, values.size // 2, values.size - 1]] = bad
        message = rf"tensor '{name}' of the model: 3 of its {values.size} numbers are not finite"
        with pytest.raises(NonFiniteWeightError, match=message):
            write_weights(tmp_path / "w", PLAN, source)


def test_codes_that_are_made_elsewhere(tmp_path):
    """They are written in their order, wherever they come from."""
    plan = plan_codes("q4", "m4", ["q", "v"], (32, 64), 16, transpose=True)
    source = checkpoint()
    asked = []

    def codes(entry, size):
        asked.append((entry.name, size))
        for name in entry.sources:
            yield round_groups(source.arrays[name], size)

    write_weights(tmp_path / "w", plan, source, codes=codes)
    expected = round_groups(np.concatenate([source.arrays["q"], source.arrays["v"]]), 16)
    found = load_file(tmp_path / "w")
    assert asked == [("q4", 16)]
    np.testing.assert_array_equal(found["q4"], expected.packed())
    np.testing.assert_array_equal(found["m4.multiplier"], expected.multipliers)


@pytest.mark.usefixtures("chunk_size")
def test_tensors_in_memory_are_those_of_the_file(tmp_path):
    kinds = ("plain", "concat", "embedding_uint8", "embedding_scale")
    plan = [entry for entry in PLAN if entry.kind in kinds]
    write_weights(tmp_path / "w", plan, checkpoint())
    found = load_file(tmp_path / "w")
    tables = read_tables(plan, checkpoint())
    assert tables.keys() == {entry.name for entry in plan}
    for name, array in tables.items():
        np.testing.assert_array_equal(array, found[name], err_msg=name)
    entry = next(entry for entry in plan if entry.name == "qk")
    np.testing.assert_array_equal(read_float32(entry, checkpoint()), found["qk"])


def test_a_weight_too_large_for_float16_is_named(tmp_path):
    source = checkpoint()
    source.arrays["k"][1, 1] = 1e5
    plan = [PlannedTensor("half", "F16", (32, 64), ("q", "k"), "concat_half", True)]
    with pytest.raises(EdgezoError, match="'q or k' of the model has a weight of 1e\\+05"):
        write_weights(tmp_path / "w", plan, source)


def test_sums_beyond_float32_are_no_fault(tmp_path):
    source = checkpoint()
    source.arrays["embed"][:] = 3e38
    write_weights(tmp_path / "w", PLAN, source)


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")
    source = checkpoint()
    source.arrays["k"][3, 3] = np.nan
    with pytest.raises(NonFiniteWeightError, match="tensor 'k' of the model: 1 of its 512 numbers"):
        write_weights(path, PLAN, source)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(EdgezoError, match="cannot write"):
        write_weights(tmp_path / "absent" / "w", PLAN, checkpoint())


class Generated:
    """A checkpoint that makes its rows when asked: nothing large lies in memory."""

    def __init__(self, rows: int, width: int):
        self.size = (rows, width)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.size

    def read(self, name: str) -> np.ndarray:
        raise AssertionError("a matrix must be read in chunks")

    def read_rows(self, name: str, start: int, stop: int) -> np.ndarray:
        values = np.arange(start * self.size[1], stop * self.size[1], dtype=np.int64)
        return ((values % 251) - 125).astype(np.float32).reshape(-1, self.size[1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "embedding", "plain"])
def test_memory_does_not_follow_the_matrix(tmp_path, kind):
    rows, width = 32000, 4096  # 524 MB as float32, 131 MB as int8
    plans = {
        "linear": plan_linear("w", "s", ["m"], (width, rows), transpose=True),
        "embedding": plan_embedding("w", "s", "m", (rows, width)),
        "plain": [PlannedTensor("w", "F32", (width, rows), ("m",), "plain", True)],
    }
    tracemalloc.start()
    write_weights(tmp_path / "w", plans[kind], Generated(rows, width))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    threads = min(MOST, os.cpu_count() or 1)
    assert peak < (70 + 40 * threads) << 20
