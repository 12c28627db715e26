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
from edgezo_export.sources.stored_codes import CodeForm
from edgezo_runtime.errors import EdgezoError

PADDING_PREFIX = "__padding__."
PAGE_BYTES = 4096
_SMALL_ALIGNMENT = 64
_PAGE_FROM_BYTES = 64 << 10

Dtype = Literal["F32", "F16", "I32", "I8", "U8"]
Kind = Literal[
    "plain",
    "plain_half",
    "concat",
    "concat_half",
    "linear_int8",
    "linear_int4",
    "linear_multiplier",
    "linear_scale",
    "linear_uint8",
    "group_scale",
    "embedding_uint8",
    "embedding_scale",
    "kept_codes",
    "kept_plane",
    "kept_scale",
    "kept_zero",
    "kept_minimum",
    "kept_factor",
    "kept_minimum_factor",
    "kept_order",
]
_DTYPES_OF: dict[Kind, tuple[Dtype, ...]] = {
    "plain": ("F32",),
    "plain_half": ("F16",),
    "concat": ("F32",),
    "concat_half": ("F16",),
    "linear_int8": ("I8",),
    "linear_int4": ("U8",),
    "linear_multiplier": ("I8",),
    "linear_scale": ("F32",),
    "linear_uint8": ("U8",),
    "group_scale": ("F32",),
    "embedding_uint8": ("U8",),
    "embedding_scale": ("F32",),
    "kept_codes": ("U8",),
    "kept_plane": ("U8",),
    "kept_scale": ("F16", "F32"),
    "kept_zero": ("U8",),
    "kept_minimum": ("F16", "F32"),
    "kept_factor": ("I8",),
    "kept_minimum_factor": ("I8",),
    "kept_order": ("I32",),
}
_PARTS_OF: dict[Kind, tuple[Kind, ...]] = {
    "linear_int8": ("linear_scale",),
    "linear_int4": ("linear_multiplier", "linear_scale"),
    "linear_uint8": ("group_scale",),
    "embedding_uint8": ("embedding_scale",),
}
_OPTIONAL_PARTS_OF: dict[Kind, tuple[Kind, ...]] = {
    "kept_codes": (
        "kept_plane",
        "kept_scale",
        "kept_zero",
        "kept_minimum",
        "kept_factor",
        "kept_minimum_factor",
        "kept_order",
    ),
}
"""Parts that some forms of a kind have."""

_PARTS = frozenset(
    part for of in (_PARTS_OF, _OPTIONAL_PARTS_OF) for parts in of.values() for part in parts
)
NUMPY: dict[Dtype, npt.DTypeLike] = {
    "F32": np.float32,
    "F16": np.float16,
    "I32": np.int32,
    "I8": np.int8,
    "U8": np.uint8,
}


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor of the file.

    kind               values, and shape in the file
    plain              one source as float32; its own, or transposed
    plain_half         the same as float16
    concat             sources joined along the output axis, float32; (in, sum out) or (sum out,)
    concat_half        the same as float16
    linear_int8        the same, rotated (see `edgezo_export.quantization.rotation`), int8, one
                       scale per output; (in, sum out)
    linear_int4        the same, rotated, codes of `edgezo_export.quantization.group_codes`;
                       (sum out, in / 2)
    linear_multiplier  the multipliers of the linear_int4 of these sources; (sum out, groups)
    linear_scale       the scales of the linear_int8 or linear_int4 of these sources; (sum out,)
    linear_uint8       the sources joined, not rotated, uint8 with zero point 128, one scale per
                       group of inputs; (sum out, in)
    group_scale        the scales of the linear_uint8 of these sources; (sum out, groups)
    embedding_uint8    one source, uint8 with zero point 128; (V, H)
    embedding_scale    the scales of the embedding_uint8 of that source; (V, 1)
    kept_codes         the lowest bits of the codes of these sources, as the checkpoint has them
                       (`edgezo_export.sources.stored_codes`); (sum out, in bits / 8)
    kept_...           what else belongs to the codes, see `edgezo_export.quantization.kept_plan`

    Attributes:
        name: name in the file.
        dtype: that of the kind; checked.
        shape: shape in the file; checked against the sources.
        sources: tensor names in the checkpoint.
        kind: see the table.
        transpose: the source matrices are (out, in), as torch's Linear stores them, and are written
            as (in, out). False for matrices stored (in, out) (GPT-2's Conv1D). Ignored for
            embeddings and vectors.
        form: of kept codes and their parts.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    kind: Kind
    transpose: bool
    form: CodeForm | None = None


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


def plan_codes(
    name: str,
    stem: str,
    sources: Sequence[str],
    shape: tuple[int, int],
    size: int,
    *,
    transpose: bool,
) -> tuple[PlannedTensor, PlannedTensor, PlannedTensor]:
    """Plan the 4-bit codes of layers that share their input, their multipliers and scales.

    Args:
        name: of the codes.
        stem: name of the layers, before the suffixes of multipliers and scales.
        sources: checkpoint names of the weights.
        shape: inputs, and outputs of all layers.
        size: inputs of a group.
        transpose: as in `PlannedTensor`.
    """
    width, outputs = shape
    names = tuple(sources)
    groups = (outputs, width // size)
    return (
        PlannedTensor(name, "U8", (outputs, width // 2), names, "linear_int4", transpose),
        PlannedTensor(f"{stem}.multiplier", "I8", groups, names, "linear_multiplier", transpose),
        PlannedTensor(f"{stem}.scale", "F32", (outputs,), names, "linear_scale", transpose),
    )


def plan_groups(
    name: str,
    scale_name: str,
    sources: Sequence[str],
    shape: tuple[int, int],
    size: int,
    *,
    transpose: bool,
) -> tuple[PlannedTensor, PlannedTensor]:
    """Plan the uint8 matrix (sum out, in) of layers that share their input, and its scales.

    `shape` and `size` are those of `plan_codes`.
    """
    width, outputs = shape
    names = tuple(sources)
    groups = (outputs, width // size)
    return (
        PlannedTensor(name, "U8", (outputs, width), names, "linear_uint8", transpose),
        PlannedTensor(scale_name, "F32", groups, names, "group_scale", transpose),
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
    if entry.dtype not in _DTYPES_OF[entry.kind]:
        allowed = " or ".join(_DTYPES_OF[entry.kind])
        raise ValueError(f"tensor {entry.name!r}: {entry.kind} is {allowed}")
    if not entry.sources or math.prod(entry.shape) <= 0:
        raise ValueError(f"tensor {entry.name!r}: shape {entry.shape} from {entry.sources}")


Step = tuple[PlannedTensor, tuple[PlannedTensor, ...]]
"""A tensor to write, and its scales (and multipliers) if it is quantized."""


def steps(plan: Sequence[PlannedTensor]) -> list[Step]:
    """Pair every quantized tensor with its scales.

    Raises:
        ValueError: scales are missing, planned twice, or without a tensor.
    """
    scales: dict[tuple[Kind, tuple[str, ...]], PlannedTensor] = {}
    for entry in plan:
        if entry.kind in _PARTS and (
            scales.setdefault((entry.kind, entry.sources), entry) is not entry
        ):
            raise ValueError(f"tensor {entry.name!r}: scales of {entry.sources} planned twice")
    found: list[Step] = []
    for entry in plan:
        if entry.kind in _PARTS:
            continue
        parts = [scales.pop((kind, entry.sources), None) for kind in _PARTS_OF.get(entry.kind, ())]
        if any(part is None for part in parts):
            raise ValueError(f"tensor {entry.name!r}: its scales are not in the plan")
        more = _OPTIONAL_PARTS_OF.get(entry.kind, ())
        parts += [scales.pop((kind, entry.sources), None) for kind in more]
        found.append((entry, tuple(part for part in parts if part is not None)))
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
    if entry.kind in ("plain", "plain_half", "embedding_uint8"):
        expected = shapes[0] if len(shapes) == 1 else None
        if entry.kind != "embedding_uint8" and entry.transpose and expected is not None:
            expected = expected[::-1] if len(expected) == 2 else None
    elif all(len(shape) == 1 for shape in shapes) and entry.kind in ("concat", "concat_half"):
        expected = (sum(shape[0] for shape in shapes),)
    elif entry.kind == "kept_codes" and entry.form is not None:
        rows, inputs = sum(shape[0] for shape in shapes), {shape[1:] for shape in shapes}
        wide = entry.shape[1] * 8 // entry.form.planes[0]
        expected = (rows, entry.shape[1]) if inputs == {(wide,)} else None
    elif all(len(shape) == 2 for shape in shapes):
        oriented = [shape[::-1] if entry.transpose else shape for shape in shapes]
        widths = {shape[0] for shape in oriented}
        joined = (oriented[0][0], sum(shape[1] for shape in oriented))
        if entry.kind == "linear_int4":
            joined = (joined[1], joined[0] // 2)
        elif entry.kind == "linear_uint8":
            joined = joined[::-1]
        expected = joined if len(widths) == 1 else None
    else:
        expected = None
    if expected != entry.shape:
        found = ", ".join(
            f"{name} {shape}" for name, shape in zip(entry.sources, shapes, strict=True)
        )
        raise EdgezoError(
            f"tensor {entry.name!r}: config.json asks for {entry.shape} (as {entry.kind}"
            f"{', transposed' if entry.transpose else ''}), and the checkpoint has {found}: "
            f"weights and config.json are not of the same model; download both again"
        )
