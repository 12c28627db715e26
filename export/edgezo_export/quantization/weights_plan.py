"""Plan the tensors of a weights file and their places in it.

The header is padded with spaces to a multiple of 4,096 bytes. Tensors of 64 KiB and more start on
a page (the file is mapped), smaller ones on 64 bytes. The format forbids holes, so gaps are tensors
of their own, named `PADDING_PREFIX` plus a number. Tensors keep the order of the plan: those of a
block are contiguous.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgezo_export.sources.model_source import TensorReader
from edgezo_runtime.errors import EdgezoError

PADDING_PREFIX = "__padding__."
PAGE_BYTES = 4096
_SMALL_ALIGNMENT = 64
_PAGE_FROM_BYTES = 64 << 10

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
NUMPY: dict[Dtype, npt.DTypeLike] = {"F32": np.float32, "I8": np.int8, "U8": np.uint8}


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor of the file.

    kind             values                                             shape
    plain            one source as float32                              its own, or transposed
    concat           sources joined along the output axis, float32      (in, sum out) or (sum out,)
    linear_int8      the same, rotated (see `edgezo_export.quantization.rotation`),
                     int8, one scale per output                         (in, sum out)
    linear_scale     the scales of the linear_int8 of the same sources  (sum out,)
    embedding_uint8  one source, uint8 with zero point 128              (V, H)
    embedding_scale  the scales of the embedding_uint8 of that source   (V, 1)

    Attributes:
        name: name in the file.
        dtype: that of the kind; checked.
        shape: shape in the file; checked against the sources.
        sources: tensor names in the checkpoint.
        kind: see the table.
        transpose: the source matrices are (out, in), as torch's Linear stores them, and are written
            as (in, out). False for matrices stored (in, out) (GPT-2's Conv1D). Ignored for
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
    """The place of a tensor in the file: absolute offset and length in bytes."""

    offset: int
    length: int
    dtype: Dtype
    shape: tuple[int, ...]


def plan_linear(
    name: str, scale_name: str, sources: Sequence[str], shape: tuple[int, int], *, transpose: bool
) -> tuple[PlannedTensor, PlannedTensor]:
    """Plan the int8 matrix (in, sum out) of layers that share their input, and its scales."""
    names = tuple(sources)
    return (
        PlannedTensor(name, "I8", shape, names, "linear_int8", transpose),
        PlannedTensor(scale_name, "F32", (shape[1],), names, "linear_scale", transpose),
    )


def plan_embedding(
    name: str, scale_name: str, source: str, shape: tuple[int, int]
) -> tuple[PlannedTensor, PlannedTensor]:
    """Plan the uint8 embedding (V, H) and its scales (V, 1)."""
    return (
        PlannedTensor(name, "U8", shape, (source,), "embedding_uint8", False),
        PlannedTensor(scale_name, "F32", (shape[0], 1), (source,), "embedding_scale", False),
    )


def layout(plan: Sequence[PlannedTensor]) -> tuple[bytes, dict[str, WrittenTensor]]:
    """Assign every tensor its place.

    Args:
        plan: the tensors in file order.
    Returns:
        The first bytes of the file (length, header, spaces) and the places by name.
    Raises:
        ValueError: a name occurs twice, a dtype is not that of the kind, or a shape has no values.
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
        length = math.prod(entry.shape) * np.dtype(NUMPY[entry.dtype]).itemsize
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


def _check_entry(entry: PlannedTensor, taken: dict[str, dict[str, object]]) -> None:
    if entry.name in taken or entry.name.startswith("__"):
        raise ValueError(f"tensor name {entry.name!r} is taken or reserved")
    if entry.dtype != _DTYPE_OF[entry.kind]:
        raise ValueError(f"tensor {entry.name!r}: {entry.kind} is {_DTYPE_OF[entry.kind]}")
    if not entry.sources or math.prod(entry.shape) <= 0:
        raise ValueError(f"tensor {entry.name!r}: shape {entry.shape} from {entry.sources}")


Step = tuple[PlannedTensor, PlannedTensor | None]
"""A tensor to write, and its scales if it is quantized."""


def steps(plan: Sequence[PlannedTensor]) -> list[Step]:
    """Pair every quantized tensor with its scales.

    Raises:
        ValueError: scales are missing, planned twice, or without a tensor.
    """
    scales: dict[tuple[Kind, tuple[str, ...]], PlannedTensor] = {}
    for entry in plan:
        if entry.kind in _SCALE_OF.values() and (
            scales.setdefault((entry.kind, entry.sources), entry) is not entry
        ):
            raise ValueError(f"tensor {entry.name!r}: scales of {entry.sources} planned twice")
    found: list[Step] = []
    for entry in plan:
        if entry.kind in _SCALE_OF:
            scale = scales.pop((_SCALE_OF[entry.kind], entry.sources), None)
            if scale is None:
                raise ValueError(f"tensor {entry.name!r}: its scales are not in the plan")
            found.append((entry, scale))
        elif entry.kind not in _SCALE_OF.values():
            found.append((entry, None))
    if scales:
        orphan = next(iter(scales.values()))
        raise ValueError(f"tensor {orphan.name!r}: scales without a quantized tensor")
    return found


def check_shapes(entry: PlannedTensor, source: TensorReader) -> None:
    """Check the shape of a tensor against those of its sources.

    Raises:
        EdgezoError: they differ.
    """
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
