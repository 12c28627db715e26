"""Writes .safetensors files, with the same bytes as the writer of the safetensors package.

That writer ends the process if it gets no memory for its buffer. A run saves its state just when
memory is short, so it must not use it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_NAMES = {"f4": "F32", "f2": "F16", "f8": "F64", "i8": "I64", "i4": "I32", "i1": "I8", "u1": "U8"}
_ALIGNMENT = 8


def write_tensors(
    path: str | Path, tensors: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write a file; not atomically.

    Args:
        path: the file to make or replace.
        tensors: by name.
        metadata: text by key, for the header.
    Raises:
        OSError: the disk did not take it.
    Memory:
        The header, and a copy of a tensor that is not contiguous and little-endian.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in names:
        value = tensors[name]
        start, end = end, end + value.nbytes
        header[name] = {
            "dtype": _NAMES[value.dtype.str[1:]],
            "shape": list(value.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with open(path, "wb", buffering=0) as file:
        _write(file, len(text).to_bytes(8, "little") + text)
        for name in names:
            value = tensors[name]
            little = np.asarray(value, value.dtype.newbyteorder("<"), order="C")
            _write(file, little.reshape(-1).view(np.uint8).data)


def _write(file: Any, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
