"""Read .safetensors checkpoints tensor by tensor, without torch and without mapping the file.

Values are read with plain file reads, so only the requested rows are in memory, never the file (a
mapped shard stays resident until the kernel reclaims the memory). bfloat16 has no numpy type: it is
the upper half of a float32.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_export.sources.pointer_files import refuse_pointer
from edgezo_export.sources.stored_codes import CodedRows, StoredForm
from edgezo_runtime.errors import EdgezoError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_HEADER_LIMIT_BYTES = 100_000_000  # the format's own limit
_READ_AS: dict[str, npt.DTypeLike] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}

_INTEGERS: dict[str, npt.DTypeLike] = {
    "I8": np.int8,
    "U8": np.uint8,
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}


@dataclass(frozen=True, slots=True)
class Stored:
    """The place of a tensor.

    Attributes:
        file: the file that holds it.
        dtype: in the format's spelling, e.g. "BF16".
        shape: of the tensor.
        offset: first byte, from the start of the file.
        length: in bytes.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


class SafetensorsFolder:
    """The tensors of a folder with model.safetensors or with shards and their index."""

    def __init__(self, folder: Path) -> None:
        """Read the headers.

        Raises:
            EdgezoError: no checkpoint, a shard is missing, or a file is damaged or truncated.
        """
        self._stored: dict[str, Stored] = {}
        for file in _files(folder):
            for name, stored in _read_header(file).items():
                if self._stored.setdefault(name, stored) is not stored:
                    raise EdgezoError(
                        f"tensor {name!r} is in {self._stored[name].file} and {file}: the shards "
                        f"are of several models; download the model again to an empty folder"
                    )

    def names(self) -> list[str]:
        """Return the names of all tensors, in file order."""
        return list(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a stored tensor."""
        return self._stored[name].shape

    def stored(self, name: str) -> Stored:
        """Return the place of a tensor."""
        return self._stored[name]

    def form(self, name: str) -> StoredForm:
        """Return how a tensor is stored: as numbers."""
        return "F16" if self._stored[name].dtype in ("F16", "BF16") else "F32"

    def read_codes(self, name: str, start: int, stop: int) -> CodedRows:
        """Refuse to read codes: there are none.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"tensor {name!r} is stored as numbers, rows {start}..{stop} asked for")

    def read_integers(self, name: str) -> npt.NDArray[Any]:
        """Read a whole tensor of integers.

        Raises:
            EdgezoError: its dtype is another one, or the file ends early.
        """
        stored = self._stored[name]
        dtype = _INTEGERS.get(stored.dtype)
        if dtype is None:
            raise EdgezoError(
                f"tensor {name!r} is {stored.dtype} in {stored.file}, and should hold integers; "
                f"download the model again"
            )
        values = np.fromfile(stored.file, dtype, math.prod(stored.shape), offset=stored.offset)
        if values.nbytes != stored.length:
            raise EdgezoError(f"{stored.file}: ends inside {name!r}; download the model again")
        return values.reshape(stored.shape)

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Read a whole tensor as float32.

        Raises:
            EdgezoError: its dtype is not a float, or the file ends early.
        """
        stored = self._stored[name]
        return _read_values(name, stored, 0, math.prod(stored.shape)).reshape(stored.shape)

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Read rows start..stop of the first axis as float32.

        Raises:
            EdgezoError: as `read`.
        """
        stored = self._stored[name]
        width = math.prod(stored.shape[1:])
        values = _read_values(name, stored, start * width, (stop - start) * width)
        return values.reshape(stop - start, *stored.shape[1:])


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if index.is_file():
        return _shards(folder, index)
    if (folder / "adapter_model.safetensors").is_file():
        raise EdgezoError(f"{folder} holds an adapter; export the base model it belongs to")
    others = sorted(file.name for file in folder.glob("*.bin"))
    found = f" but {others[0]}, which is not read" if others else ""
    raise EdgezoError(
        f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}{found}; load the model with "
        "transformers and save it with 'save_pretrained', which writes safetensors"
    )


def _shards(folder: Path, index: Path) -> list[Path]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = list(dict.fromkeys(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EdgezoError(f"{index} is not an index of shards: {error!r}") from error
    files = []
    for name in names:
        if not isinstance(name, str) or name != Path(name).name:
            raise EdgezoError(f"{index}: shard {name!r:.80} is not a plain file name")
        if not (folder / name).is_file():
            raise EdgezoError(f"{folder}: shard {name} is missing; download the model again")
        files.append(folder / name)
    return files


def _read_header(file: Path) -> dict[str, Stored]:
    refuse_pointer(file)
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(_HEADER_LIMIT_BYTES, size - 8):
            raise EdgezoError(f"{file}: damaged or truncated (header {length}, file {size} bytes)")
        text = stream.read(length)
    start = 8 + length
    stored = {}
    try:
        header = json.loads(text, object_pairs_hook=_once)
        header.pop("__metadata__", None)
        for name, entry in header.items():
            first, last = (int(offset) for offset in entry["data_offsets"])
            shape = tuple(int(dim) for dim in entry["shape"])
            if not 0 <= first <= last or min(shape, default=0) < 0:
                raise ValueError(f"{name}: offsets {first}..{last}, shape {shape}")
            if start + last > size:
                raise EdgezoError(
                    f"{file}: truncated, {name} ends at {start + last}, the file at {size} bytes; "
                    "download the model again"
                )
            stored[name] = Stored(file, str(entry["dtype"]), shape, start + first, last - first)
            _check_length(stored[name])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EdgezoError(f"{file}: damaged header: {error!r:.200}") from error
    return stored


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of pairs whose names must differ: the last one would win silently."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r:.80} twice")
    return found


def _check_length(stored: Stored) -> None:
    if stored.dtype in _READ_AS:
        expected = math.prod(stored.shape) * np.dtype(_READ_AS[stored.dtype]).itemsize
        if stored.length != expected:
            raise ValueError(f"{stored.length} bytes for {stored.dtype} {stored.shape}")


def _read_values(name: str, stored: Stored, first: int, count: int) -> npt.NDArray[np.float32]:
    if stored.dtype not in _READ_AS:
        raise EdgezoError(
            f"tensor {name!r} is {stored.dtype} in {stored.file}: only unquantized checkpoints "
            f"({', '.join(_READ_AS)}) can be exported"
        )
    dtype = np.dtype(_READ_AS[stored.dtype])
    if not 0 <= first <= first + count <= math.prod(stored.shape):
        raise IndexError(f"values {first}..{first + count} of tensor {name!r} {stored.shape}")
    offset = stored.offset + first * dtype.itemsize
    values = np.fromfile(stored.file, dtype, count, offset=offset)
    if len(values) != count:
        raise EdgezoError(f"{stored.file}: ends inside tensor {name!r}; download the model again")
    if stored.dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)
