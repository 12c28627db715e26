"""Write a plan of tensors to one .safetensors file, a piece at a time.

The file is laid out before a byte is read: the header is padded with spaces to a multiple of
4,096 bytes, tensors of 64 KiB and more start on a page (the file is mapped), smaller ones on 64
bytes. The format forbids holes, so gaps are tensors of their own, named `PADDING_PREFIX` plus a
number. Tensors keep the order of the plan: what a block reads lies together.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from edgezo_export.quantization.quantize import NonFiniteWeightError, quantize_rows, to_unsigned
from edgezo_export.quantization.rotation import rotate_rows
from edgezo_export.sources.model_source import TensorReader
from edgezo_runtime.errors import EdgezoError
from edgezo_runtime.system.files import atomic_path, sha256_file

PADDING_PREFIX = "__padding__."
PAGE_BYTES = 4096
_SMALL_ALIGNMENT = 64
_PAGE_FROM_BYTES = 64 << 10
_CHUNK_BYTES = 8 << 20  # float32 values read at a time
_STRIP_BYTES = 32 << 20  # transposed values collected before they are written

Dtype = Literal["F32", "I8", "U8"]
Kind = Literal[
    "plain", "concat", "linear_int8", "linear_scale", "embedding_uint8", "embedding_scale"
]
_DTYPE_OF: dict[Kind, Dtype] = {
    "plain": "F32",
    "concat": "F32",
    "linear_int8": "I8",
    "linear_scale": "F32",
    "embedding_uint8": "U8",
    "embedding_scale": "F32",
}
_SCALE_OF: dict[Kind, Kind] = {
    "linear_int8": "linear_scale",
    "embedding_uint8": "embedding_scale",
}
_NUMPY: dict[Dtype, npt.DTypeLike] = {"F32": np.float32, "I8": np.int8, "U8": np.uint8}

Progress = Callable[[int, int], None]
"""Told the bytes written and the bytes in all."""


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor of the file.

    kind             values                                             shape
    plain            one source as float32                              its own, or transposed
    concat           sources joined along the output axis, float32      (in, sum out) or (sum out,)
    linear_int8      the same, rotated (see `edgezo_export.quantization.rotation`),
                     int8, one scale an output                          (in, sum out)
    linear_scale     the scales of the linear_int8 of the same sources  (sum out,)
    embedding_uint8  one source, uint8 with zero point 128              (V, H)
    embedding_scale  the scales of the embedding_uint8 of that source   (V, 1)

    Attributes:
        name: name in the file.
        dtype: what the kind gives; checked.
        shape: shape in the file; checked against the sources.
        sources: tensor names in the checkpoint.
        kind: see the table.
        transpose: the source matrices are (out, in), as torch's Linear stores them, and turn into
            (in, out). False for matrices stored (in, out) (GPT-2's Conv1D). Ignored for
            embeddings and vectors.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    kind: Kind
    transpose: bool


@dataclass(frozen=True, slots=True)
class WrittenTensor:
    """Where a tensor lies: absolute offset and length in bytes."""

    offset: int
    length: int
    dtype: Dtype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WrittenWeights:
    """What `write_weights` wrote; `tensors` has the planned names only, no padding."""

    tensors: dict[str, WrittenTensor]
    size_bytes: int
    sha256: str


def plan_linear(
    name: str, scale_name: str, sources: Sequence[str], shape: tuple[int, int], *, transpose: bool
) -> tuple[PlannedTensor, PlannedTensor]:
    """The int8 matrix (in, sum out) of linear layers that share their input, and its scales."""
    names = tuple(sources)
    return (
        PlannedTensor(name, "I8", shape, names, "linear_int8", transpose),
        PlannedTensor(scale_name, "F32", (shape[1],), names, "linear_scale", transpose),
    )


def plan_embedding(
    name: str, scale_name: str, source: str, shape: tuple[int, int]
) -> tuple[PlannedTensor, PlannedTensor]:
    """The uint8 embedding (V, H) and its scales (V, 1)."""
    return (
        PlannedTensor(name, "U8", shape, (source,), "embedding_uint8", False),
        PlannedTensor(scale_name, "F32", (shape[0], 1), (source,), "embedding_scale", False),
    )


def layout(plan: Sequence[PlannedTensor]) -> tuple[bytes, dict[str, WrittenTensor]]:
    """Give every tensor its place.

    Args:
        plan: the tensors in file order.
    Returns:
        The first bytes of the file (length, header, spaces) and name to place.
    Raises:
        ValueError: a name twice, a dtype that does not belong to the kind, a shape without values.
    """
    header: dict[str, dict[str, object]] = {}
    places: dict[str, WrittenTensor] = {}
    position = 0

    def add(name: str, dtype: Dtype, shape: tuple[int, ...], length: int) -> None:
        nonlocal position
        span = [position, position + length]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": span}
        places[name] = WrittenTensor(position, length, dtype, shape)
        position += length

    for entry in plan:
        _check_entry(entry, header)
        length = math.prod(entry.shape) * np.dtype(_NUMPY[entry.dtype]).itemsize
        gap = -position % (PAGE_BYTES if length >= _PAGE_FROM_BYTES else _SMALL_ALIGNMENT)
        if gap:
            add(f"{PADDING_PREFIX}{len(header)}", "U8", (gap,), gap)
        add(entry.name, entry.dtype, entry.shape, length)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % PAGE_BYTES)
    start = 8 + len(text)
    found = {
        entry.name: WrittenTensor(
            start + places[entry.name].offset,
            places[entry.name].length,
            entry.dtype,
            entry.shape,
        )
        for entry in plan
    }
    return struct.pack("<Q", len(text)) + text, found


def write_weights(
    path: Path,
    plan: Sequence[PlannedTensor],
    source: TensorReader,
    progress: Progress | None = None,
) -> WrittenWeights:
    """Read, quantize and write every tensor of a plan.

    The file appears under its name only when it is complete and on the disk.

    Args:
        path: the .safetensors file to write; replaced if it exists.
        plan: the tensors; every linear_int8 and embedding_uint8 has its scales in the plan.
        source: the checkpoint.
        progress: called after every tensor read.
    Returns:
        Places of the tensors, size and SHA-256 of the file.
    Raises:
        ValueError: the plan contradicts itself.
        EdgezoError: a tensor is missing, has another shape or values that are not finite, or the
            disk is full.
    Memory:
        About 70 MB beyond the source's own, whatever the size of the tensors.
    """
    start, places = layout(plan)
    steps = _steps(plan)
    for step in steps:
        _check_shapes(step[0], source)
    total = sum(place.length for place in places.values())
    end = max([len(start), *(place.offset + place.length for place in places.values())])
    try:
        with atomic_path(path) as temporary:
            with temporary.open("wb") as file:
                _write_at(file, start, 0)
                file.truncate(end)
                done = 0
                for entry, scale in steps:
                    _write_entry(file, entry, scale, source, places)
                    done += places[entry.name].length + (places[scale.name].length if scale else 0)
                    if progress is not None:
                        progress(done, total)
            digest = sha256_file(temporary)
    except OSError as error:
        raise EdgezoError(f"cannot write {path}: {error.strerror or error}") from error
    return WrittenWeights(places, end, digest)


def _check_entry(entry: PlannedTensor, taken: dict[str, dict[str, object]]) -> None:
    if entry.name in taken or entry.name.startswith("__"):
        raise ValueError(f"tensor name {entry.name!r} is taken or reserved")
    if entry.dtype != _DTYPE_OF[entry.kind]:
        raise ValueError(f"tensor {entry.name!r}: {entry.kind} is {_DTYPE_OF[entry.kind]}")
    if not entry.sources or math.prod(entry.shape) <= 0:
        raise ValueError(f"tensor {entry.name!r}: shape {entry.shape} from {entry.sources}")


Step = tuple[PlannedTensor, PlannedTensor | None]


def _steps(plan: Sequence[PlannedTensor]) -> list[Step]:
    """Pair every quantized tensor with its scales."""
    scales: dict[tuple[Kind, tuple[str, ...]], PlannedTensor] = {}
    for entry in plan:
        if entry.kind in _SCALE_OF.values() and (
            scales.setdefault((entry.kind, entry.sources), entry) is not entry
        ):
            raise ValueError(f"tensor {entry.name!r}: scales of {entry.sources} planned twice")
    steps: list[Step] = []
    for entry in plan:
        if entry.kind in _SCALE_OF:
            scale = scales.pop((_SCALE_OF[entry.kind], entry.sources), None)
            if scale is None:
                raise ValueError(f"tensor {entry.name!r}: its scales are not in the plan")
            steps.append((entry, scale))
        elif entry.kind not in _SCALE_OF.values():
            steps.append((entry, None))
    if scales:
        orphan = next(iter(scales.values()))
        raise ValueError(f"tensor {orphan.name!r}: scales without a quantized tensor")
    return steps


def _check_shapes(entry: PlannedTensor, source: TensorReader) -> None:
    shapes = [source.shape(name) for name in entry.sources]
    if entry.kind in ("plain", "embedding_uint8"):
        expected = shapes[0] if len(shapes) == 1 else None
        if entry.kind == "plain" and entry.transpose and expected is not None:
            expected = expected[::-1] if len(expected) == 2 else None
    elif all(len(shape) == 1 for shape in shapes) and entry.kind == "concat":
        expected = (sum(shape[0] for shape in shapes),)
    elif all(len(shape) == 2 for shape in shapes):
        oriented = [shape[::-1] if entry.transpose else shape for shape in shapes]
        widths = {shape[0] for shape in oriented}
        joined = (oriented[0][0], sum(shape[1] for shape in oriented))
        expected = joined if len(widths) == 1 else None
    else:
        expected = None
    if expected != entry.shape:
        raise EdgezoError(
            f"tensor {entry.name!r}: shape {entry.shape} planned, the checkpoint has "
            f"{dict(zip(entry.sources, shapes, strict=True))} (kind {entry.kind}, "
            f"transpose {entry.transpose})"
        )


def _write_entry(
    file: BinaryIO,
    entry: PlannedTensor,
    scale: PlannedTensor | None,
    source: TensorReader,
    places: dict[str, WrittenTensor],
) -> None:
    place = places[entry.name]
    if entry.kind == "linear_int8":
        scales: list[npt.NDArray[np.float32]] = []
        rotated = (rotate_rows(chunk) for chunk in _channels(entry, source))
        _write_columns(file, place, _quantized(rotated, entry, scales))
        values = np.concatenate(scales)
    elif entry.kind == "embedding_uint8":
        scales = []
        chunks = _quantized(_rows(entry.sources[0], source), entry, scales)
        _write_rows(file, place, (to_unsigned(chunk) for chunk in chunks))
        values = np.concatenate(scales)
    elif len(entry.shape) == 2 and (entry.transpose or entry.kind == "concat"):
        _write_columns(file, place, _channels(entry, source))
        return
    else:
        for_all = (chunk for name in entry.sources for chunk in _rows(name, source))
        _write_rows(file, place, for_all)
        return
    if scale is not None:
        _write_at(file, values, places[scale.name].offset)


def _quantized(
    chunks: Iterator[npt.NDArray[np.float32]],
    entry: PlannedTensor,
    scales: list[npt.NDArray[np.float32]],
) -> Iterator[npt.NDArray[np.int8]]:
    for chunk in chunks:
        try:
            values, scale = quantize_rows(chunk)
        except NonFiniteWeightError as error:
            raise NonFiniteWeightError(f"tensor {entry.name!r}: {error}") from error
        scales.append(scale)
        yield values


def _rows(name: str, source: TensorReader) -> Iterator[npt.NDArray[np.float32]]:
    """A tensor in pieces along its first axis."""
    shape = source.shape(name)
    if not shape:
        yield source.read(name)
        return
    step = max(1, _CHUNK_BYTES // max(1, 4 * math.prod(shape[1:])))
    for first in range(0, shape[0], step):
        yield source.read_rows(name, first, min(first + step, shape[0]))


def _channels(entry: PlannedTensor, source: TensorReader) -> Iterator[npt.NDArray[np.float32]]:
    """The output channels of all sources in order, as (channels, in) pieces."""
    for name in entry.sources:
        if entry.transpose:
            yield from _rows(name, source)
            continue
        rows, columns = source.shape(name)
        step = max(1, _CHUNK_BYTES // (4 * rows))
        for first in range(0, columns, step):
            # Read whole rows again for every strip of columns: such matrices are small (GPT-2).
            last = min(first + step, columns)
            strip = np.empty((last - first, rows), np.float32)
            filled = 0
            for piece in _rows(name, source):
                strip[:, filled : filled + len(piece)] = piece[:, first:last].T
                filled += len(piece)
            yield strip


def _write_rows(file: BinaryIO, place: WrittenTensor, chunks: Iterator[npt.NDArray[Any]]) -> None:
    position = place.offset
    for chunk in chunks:
        _write_at(file, chunk, position)
        position += chunk.nbytes


def _write_columns(
    file: BinaryIO, place: WrittenTensor, chunks: Iterator[npt.NDArray[Any]]
) -> None:
    """Write (channels, in) pieces transposed, collecting strips of columns in between."""
    rows, columns = place.shape
    itemsize = place.length // (rows * columns)
    width = min(columns, max(1, _STRIP_BYTES // (rows * itemsize)))
    strip = np.empty((rows, width), _NUMPY[place.dtype])
    first = filled = 0
    for chunk in chunks:
        taken = 0
        while taken < len(chunk):
            count = min(width - filled, len(chunk) - taken)
            strip[:, filled : filled + count] = chunk[taken : taken + count].T
            taken += count
            filled += count
            if filled == width or first + filled == columns:
                _write_strip(file, place, strip[:, :filled], first)
                first += filled
                filled = 0


def _write_strip(file: BinaryIO, place: WrittenTensor, strip: npt.NDArray[Any], first: int) -> None:
    rows, columns = place.shape
    if strip.shape == (rows, columns):
        _write_at(file, strip, place.offset)
        return
    for row in range(rows):
        offset = place.offset + (row * columns + first) * strip.itemsize
        _write_at(file, strip[row], offset)


def _write_at(file: BinaryIO, content: bytes | npt.NDArray[Any], offset: int) -> None:
    file.seek(offset)
    if isinstance(content, bytes):
        file.write(content)
    else:
        file.write(np.ascontiguousarray(content).reshape(-1).view(np.uint8).data)
