"""The mapped file of frozen weights."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgezo_runtime.bundle.weights import WeightsFile, read_header
from edgezo_runtime.errors import BundleError

TENSORS = {
    "matrix": np.arange(24, dtype=np.float32).reshape(6, 4),
    "bytes": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "small": np.float32(2.5),
    "other": np.arange(4, dtype=np.int64),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file({name: np.asarray(value) for name, value in TENSORS.items()}, tmp_path / "w")
    return tmp_path / "w"


def write(path: Path, header: object, size: int = 64) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    return path


def test_views_are_the_tensors(path: Path) -> None:
    weights = WeightsFile(path)
    assert np.array_equal(weights.view("matrix", "float32", (6, 4)), TENSORS["matrix"])
    assert np.array_equal(weights.view("matrix", "float32", (2, 4), 3), TENSORS["matrix"][3:5])
    assert np.array_equal(weights.view("matrix", "float32", (8,), 4), TENSORS["matrix"][4:].ravel())
    assert np.array_equal(weights.view("bytes", "uint8", (3, 4)), TENSORS["bytes"])
    assert weights.view("small", "float32", ()) == TENSORS["small"]


def test_a_view_cannot_be_written(path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        WeightsFile(path).view("matrix", "float32", (6, 4))[0, 0] = 1


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "start", "message"),
    [
        ("absent", "float32", (1,), 0, "'absent' is missing"),
        ("other", "int64", (4,), 0, "'other' is missing"),  # no graph takes int64 weights
        ("matrix", "int8", (6, 4), 0, "is float32"),
        ("matrix", "float32", (7, 4), 0, "from row 0"),
        ("matrix", "float32", (2, 4), 5, "from row 5"),
        ("matrix", "float32", (1, 4), 2**70, "from row"),
        ("matrix", "float32", (1, 4), -1, "from row -1"),
        ("small", "float32", (), 1, "from row 1"),
    ],
)
def test_what_a_graph_may_not_read(path, name, dtype, shape, start, message) -> None:
    with pytest.raises(BundleError, match=message):
        WeightsFile(path).view(name, dtype, shape, start)


ENTRY = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        [],
        {"a": {}},
        {"a": 1},
        {"a": {**ENTRY, "data_offsets": [0, 65]}},
        {"a": {**ENTRY, "data_offsets": [64, 0]}},
        {"a": {**ENTRY, "data_offsets": [-64, 0]}},
        {"a": {**ENTRY, "data_offsets": [0]}},
        {"a": {**ENTRY, "shape": [4, 5]}},
        {"a": {**ENTRY, "shape": [-4, -4]}},
        {"a": {**ENTRY, "shape": [2**40, 2**40]}},
        {"a": {**ENTRY, "shape": "44"}},
        {"a": {**ENTRY, "shape": [0, 4], "data_offsets": [0, 0]}},
        {"a": {**ENTRY, "data_offsets": [0.0, 64.0]}},
        {"a": {**ENTRY, "shape": [4, 3], "data_offsets": [1, 49]}},
        b"[" * 200_000,
    ],
)
def test_a_header_that_lies(tmp_path: Path, header: object) -> None:
    with pytest.raises(BundleError, match="not a safetensors file"):
        read_header(write(tmp_path / "w", header))


def test_a_header_that_fits(tmp_path: Path) -> None:
    header = {"__metadata__": {"a": "b"}, "a": ENTRY}
    assert list(read_header(write(tmp_path / "w", header))) == ["a"]


@pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 2**60) + b"{}"])
def test_a_file_that_is_too_short(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(BundleError, match="not a safetensors file"):
        WeightsFile(tmp_path / "w")
