"""Reads .safetensors files, strictly: sizes and shapes are checked before anything is allocated.

A header that repeats a name, lets two tensors share bytes or claims more than the file has is
refused: such files may come from strangers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import DoesNotFitError
from edgezo_runtime.system.files import open_regular
from edgezo_runtime.system.lfs_pointer import pointer_problem
from edgezo_runtime.system.memory import available_bytes
from edgezo_runtime.system.sizes import format_size
from edgezo_runtime.system.typed_json import LONGEST_TEXT, JsonShapeError, decode, parse_object

_LENGTH_BYTES = 8
_MAX_AXES = 32
_MAX_AXIS = 1 << 48
_SMALL_BYTES = 64 << 20
"""Tensors of this size are read without a check of the available memory."""

_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}

_BFLOAT16 = "BF16"
"""numpy has no such type; `read_floats` takes it as the upper half of a float32."""


class TensorHeaderError(ValueError):
    """A file is not .safetensors, or contradicts itself; the message does not name the file."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Dtype, shape, absolute offset and length in bytes of a tensor in a file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """The header of a file.

    Attributes:
        metadata: text by key.
        tensors: by name, without tensors of types that numpy does not have.
        unknown: names of the tensors that were left out.
        halves: the bfloat16 tensors among the unknown ones, as uint16.
    """

    metadata: Mapping[str, str]
    tensors: Mapping[str, StoredTensor]
    unknown: tuple[str, ...]
    halves: Mapping[str, StoredTensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor's entry in the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, ...]

    @property
    def span(self) -> tuple[int, int]:
        """First byte of the data and end.

        Raises:
            TensorHeaderError: there are not two offsets.
        """
        if len(self.data_offsets) != 2:
            raise TensorHeaderError(f"{len(self.data_offsets)} offsets")
        return self.data_offsets[0], self.data_offsets[1]


def read_tensor_header(path: Path, *, follow: bool = True) -> TensorHeader:
    """Read and check the header of a file, and nothing else of it.

    Args:
        path: the file.
        follow: may the name be a link?
    Raises:
        TensorHeaderError: it is not .safetensors, is truncated, contradicts itself, or is a
            pointer of git-lfs.
        OSError: it cannot be read.
    Memory:
        The header, at most `LONGEST_TEXT` bytes of `MAX_VALUES` values.
    """
    problem = pointer_problem(path)
    if problem is not None:
        raise TensorHeaderError(problem)
    with open_regular(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(_LENGTH_BYTES)
        length = int.from_bytes(first, "little")
        if len(first) < _LENGTH_BYTES or length > min(LONGEST_TEXT, size - _LENGTH_BYTES):
            raise TensorHeaderError(f"a header of {length} bytes in a file of {size}")
        content = file.read(length)
    try:
        header = parse_object(content.decode("utf-8"))
        metadata = decode(dict[str, str], header.pop("__metadata__", {}), "__metadata__")
        entries = {name: decode(_Entry, entry, name[:80]) for name, entry in header.items()}
    except UnicodeDecodeError as error:
        raise TensorHeaderError("the header is not UTF-8") from error
    except JsonShapeError as error:
        raise TensorHeaderError(f"the header is wrong: {error}") from error
    start = _LENGTH_BYTES + length
    tensors = {name: _place(name, entry, start, size) for name, entry in entries.items()}
    _check_apart(entries)
    found = {name: stored for name, stored in tensors.items() if stored is not None}
    halves = {name: stored for name, stored in found.items() if entries[name].dtype == _BFLOAT16}
    known = {name: stored for name, stored in found.items() if name not in halves}
    return TensorHeader(metadata, known, tuple(tensors.keys() - known.keys()), halves)


def read_tensors(path: Path, header: TensorHeader) -> dict[str, npt.NDArray[Any]]:
    """Read every tensor of a header.

    Args:
        path: the file.
        header: of the same file.
    Returns:
        Arrays of the caller's own, by name, in the order of the names.
    Raises:
        TensorHeaderError: the file is shorter than it was.
        DoesNotFitError: they need more memory than there is.
        OSError: it cannot be read.
    Memory:
        The tensors.
    """
    return _read(path, header.tensors)


def read_floats(path: Path, header: TensorHeader) -> dict[str, npt.NDArray[np.float32]]:
    """Read every tensor of a header as float32.

    Args:
        path: the file.
        header: of the same file.
    Returns:
        Arrays of the caller's own, by name; a number that is too large is infinite.
    Raises:
        TensorHeaderError: a tensor is no float, or the file is shorter than it was.
        DoesNotFitError: they need more memory than there is.
        OSError: it cannot be read.
    Memory:
        The tensors, twice where they are not float32.
    """
    for name, stored in header.tensors.items():
        if stored.dtype.kind != "f":
            raise TensorHeaderError(f"tensor {name[:80]!r} is {stored.dtype}, expected floats")
    if lost := sorted(set(header.unknown) - header.halves.keys()):
        raise TensorHeaderError(f"tensor {lost[0][:80]!r} has an unknown type")
    found = _read(path, {**header.tensors, **header.halves})
    for name in found:
        if name in header.halves:
            found[name] = (found[name].astype(np.uint32) << 16).view(np.float32)
        else:
            with np.errstate(over="ignore"):
                found[name] = found[name].astype(np.float32, copy=False)
    return found


def _read(path: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, npt.NDArray[Any]]:
    total = sum(stored.length for stored in tensors.values())
    if total > _SMALL_BYTES and total > (left := available_bytes()):
        raise DoesNotFitError(
            f"{path}: {format_size(total)} of tensors do not fit in the {format_size(left)} of "
            f"memory that are left"
        )
    found: dict[str, npt.NDArray[Any]] = {}
    with open_regular(path) as file:
        for name, stored in sorted(tensors.items()):
            file.seek(stored.offset)
            count = math.prod(stored.shape)
            values = np.fromfile(file, stored.dtype.newbyteorder("<"), count)
            if values.size != count:
                raise TensorHeaderError(f"tensor {name[:80]!r} is truncated")
            found[name] = values.astype(stored.dtype, copy=False).reshape(stored.shape)
    return found


def _place(name: str, entry: _Entry, start: int, size: int) -> StoredTensor | None:
    """The place of a tensor in the file; None if its type is unknown."""
    shown = repr(name[:80])
    dtype = np.dtype(np.uint16) if entry.dtype == _BFLOAT16 else _DTYPES.get(entry.dtype)
    first, end = entry.span
    if not 0 <= first <= end <= size - start:
        raise TensorHeaderError(f"tensor {shown} lies outside the file")
    if len(entry.shape) > _MAX_AXES or not all(0 <= dim <= _MAX_AXIS for dim in entry.shape):
        raise TensorHeaderError(f"tensor {shown}: shape {str(entry.shape[:8])[:80]}")
    if dtype is None:
        return None
    if math.prod(entry.shape) * dtype.itemsize != end - first:
        raise TensorHeaderError(f"tensor {shown}: {end - first} bytes for {entry.shape}")
    return StoredTensor(dtype, entry.shape, start + first, end - first)


def _check_apart(entries: Mapping[str, _Entry]) -> None:
    """Refuse tensors that share bytes: a small file could fill the memory with them."""
    behind = 0
    for (first, end), name in sorted((entry.span, name) for name, entry in entries.items()):
        if end > first and first < behind:
            raise TensorHeaderError(f"tensor {name[:80]!r} shares bytes with another one")
        behind = max(behind, end)
