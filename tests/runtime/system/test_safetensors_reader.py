"""The reader of .safetensors files: what it reads, and what it refuses before it allocates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgezo_runtime.errors import DoesNotFitError
from edgezo_runtime.system import safetensors_reader
from edgezo_runtime.system.safetensors_reader import (
    StoredTensor,
    TensorHeaderError,
    read_floats,
    read_tensor_header,
    read_tensors,
)

TENSORS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array([1, -2], np.int8),
    "empty": np.zeros((0, 4), np.float16),
}


def raw(path: Path, header: dict[str, Any], data: bytes = b"") -> Path:
    """A file with this header, whatever it says."""
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: str, shape: list[int], *span: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(span)}


def test_a_file_of_the_package_is_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "t", {"key": "value"})
    header = read_tensor_header(tmp_path / "t")
    assert header.metadata == {"key": "value"}
    assert header.unknown == ()
    found = read_tensors(tmp_path / "t", header)
    assert list(found) == sorted(TENSORS)
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype
        found[name][...] = 0  # the caller's own
    stored = header.tensors["b"]
    assert stored == StoredTensor(np.dtype(np.float32), (2, 3), stored.offset, 24)
    data = (tmp_path / "t").read_bytes()[stored.offset : stored.offset + stored.length]
    assert data == TENSORS["b"].tobytes()


def test_bfloat16_is_read_as_floats(tmp_path: Path) -> None:
    values = np.array([1.5, -3.0], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    doubles = np.array([1e300, 2.0], "<f8").tobytes()
    header = {"h": entry("BF16", [2], 0, 4), "d": entry("F64", [2], 4, 20)}
    path = raw(tmp_path / "t", header, halves + doubles)
    found = read_tensor_header(path)
    assert (list(found.tensors), found.unknown, list(found.halves)) == (["d"], ("h",), ["h"])
    floats = read_floats(path, found)
    np.testing.assert_array_equal(floats["h"], values)
    np.testing.assert_array_equal(floats["d"], [np.inf, 2.0])
    assert floats["d"].dtype == np.float32


def test_only_floats_are_read_as_floats(tmp_path: Path) -> None:
    path = raw(tmp_path / "t", {"i": entry("I8", [1], 0, 1)}, b"\0")
    with pytest.raises(TensorHeaderError, match="'i' is int8, expected floats"):
        read_floats(path, read_tensor_header(path))
    path = raw(tmp_path / "u", {"f": entry("F8_E4M3", [1], 0, 1)}, b"\0")
    with pytest.raises(TensorHeaderError, match="'f' has an unknown type"):
        read_floats(path, read_tensor_header(path))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, "'b' shares bytes"),
        ({"a": entry("F32", [4], 0, 16)}, "'a' lies outside the file"),
        ({"a": entry("F32", [1], 8, 4)}, "'a' lies outside the file"),
        ({"a": entry("F32", [3], 0, 8)}, r"'a': 8 bytes for \(3,\)"),
        ({"a": entry("F32", [-1], 0, 4)}, "'a': shape"),
        ({"a": entry("F32", [1] * 33, 0, 4)}, "'a': shape"),
        ({"a": entry("F32", [1], 0)}, "1 offsets"),
        ({"a": {"dtype": "F32", "shape": [1]}}, r"a\.data_offsets: missing"),
        ({"a": {**entry("F32", [1], 0, 4), "odd": 1}}, r"a\.odd: unknown key"),
        ({"__metadata__": {"a": 1}}, r"__metadata__\.a: expected str"),
    ],
)
def test_headers_that_contradict_themselves(
    tmp_path: Path, header: dict[str, Any], message: str
) -> None:
    path = raw(tmp_path / "t", header, bytes(12))
    with pytest.raises(TensorHeaderError, match=message):
        read_tensor_header(path)


def test_a_header_longer_than_its_file(tmp_path: Path) -> None:
    for content in (b"", b"1234567", (100).to_bytes(8, "little") + b"{}"):
        (tmp_path / "t").write_bytes(content)
        with pytest.raises(TensorHeaderError, match="a header of"):
            read_tensor_header(tmp_path / "t")
    (tmp_path / "t").write_bytes((2).to_bytes(8, "little") + b"\xff\xff")
    with pytest.raises(TensorHeaderError, match="not UTF-8"):
        read_tensor_header(tmp_path / "t")


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "t")
    header = read_tensor_header(tmp_path / "t")
    (tmp_path / "t").write_bytes((tmp_path / "t").read_bytes()[:-1])
    with pytest.raises(TensorHeaderError, match="is truncated"):
        read_tensors(tmp_path / "t", header)


def test_tensors_beyond_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(TENSORS, tmp_path / "t")
    header = read_tensor_header(tmp_path / "t")
    monkeypatch.setattr(safetensors_reader, "_SMALL_BYTES", 8)
    monkeypatch.setattr(safetensors_reader, "available_bytes", lambda: 20)
    with pytest.raises(DoesNotFitError, match="26 B of tensors do not fit in the 20 B of memory"):
        read_tensors(tmp_path / "t", header)
