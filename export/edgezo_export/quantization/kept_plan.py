"""Plan and write the tensors of matrices whose codes are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_export.quantization.quantize import NonFiniteWeightError, count_not_finite
from edgezo_export.quantization.weights_plan import NUMPY, Dtype, Kind, PlannedTensor
from edgezo_export.sources.stored_codes import CodedRows, CodeForm

ReadCodes = Callable[[str, int, int], CodedRows]
"""Takes the name of a matrix, a first row and an end; returns the codes of these rows."""

_CHUNK_WEIGHTS = 2 << 20
"""Weights read at a time."""


def plan_kept(
    stem: str, sources: Sequence[str], form: CodeForm, shape: tuple[int, int]
) -> dict[Kind, PlannedTensor]:
    """Plan the tensors of matrices of one form that follow each other, by their kinds.

    Args:
        stem: name of the matrices, before the suffixes of the parts.
        sources: checkpoint names.
        form: of all of them.
        shape: outputs of all, inputs.
    """
    outputs, width = shape
    names = tuple(sources)
    groups = width // form.size
    coarse = groups // form.factors if form.factors else groups
    made: dict[Kind, PlannedTensor] = {}

    def add(kind: Kind, suffix: str, dtype: Dtype, size: tuple[int, ...]) -> None:
        made[kind] = PlannedTensor(f"{stem}.{suffix}", dtype, size, names, kind, False, form)

    for kind, bits in zip(("kept_codes", "kept_plane"), form.planes, strict=False):
        add(kind, "nf4" if form.nf4 else f"codes{bits}", "U8", (outputs, width * bits // 8))  # type: ignore[arg-type]
    add("kept_scale", "scale", form.scale, (outputs, coarse))
    if form.zero is None:
        add("kept_zero", "zero", "U8", (outputs, groups))
    if form.minimum:
        add("kept_minimum", "minimum", form.scale, (outputs, coarse))
    if form.factors:
        add("kept_factor", "factor", "I8", (outputs, groups))
        if form.minimum:
            add("kept_minimum_factor", "minimum_factor", "I8", (outputs, groups))
    if form.order:
        add("kept_order", "order", "I32", (width,))
    return made


def packed_planes(codes: npt.NDArray[np.uint8], form: CodeForm) -> list[npt.NDArray[np.uint8]]:
    """Pack (R, K) codes into planes.

    A plane of b bits has 8 / b parts of the inputs side by side: byte j holds input j in its lowest
    bits, input j + K b / 8 above it, and so on. Plane 4 of NF4 is as bitsandbytes has it: two
    neighbours in a byte, the first one in the high half.

    Returns:
        (R, K b / 8) for each plane.
    """
    if form.nf4:
        return [(codes[:, 0::2] << np.uint8(4)) | codes[:, 1::2]]
    made: list[npt.NDArray[np.uint8]] = []
    shift = 0
    for bits in form.planes:
        own = (codes >> np.uint8(shift)) & np.uint8((1 << bits) - 1)
        shift += bits
        plane = np.zeros((len(codes), codes.shape[1] * bits // 8), np.uint8)
        for part, values in enumerate(np.split(own, 8 // bits, axis=1)):
            plane |= values << np.uint8(part * bits)
        made.append(plane)
    return made


def kept_arrays(
    entry: PlannedTensor, parts: Sequence[PlannedTensor], read: ReadCodes, shapes: Sequence[int]
) -> Iterator[list[npt.NDArray[Any] | None]]:
    """Yield chunks of rows of a planned kept_codes and its parts, in the form of the file.

    The order of the inputs comes with the first chunk only; the later ones have None.

    Args:
        entry: the codes.
        parts: what belongs to them.
        read: reads codes.
        shapes: rows of each source.
    Raises:
        NonFiniteWeightError: a scale or a minimum is not finite.
    """
    form = entry.form
    if form is None:
        raise ValueError(f"tensor {entry.name!r}: its form is not in the plan")
    width = entry.shape[1] * 8 // form.planes[0]
    step = max(1, _CHUNK_WEIGHTS // width)
    first_chunk = True
    for name, rows in zip(entry.sources, shapes, strict=True):
        for first in range(0, rows, step):
            found = read(name, first, min(first + step, rows))
            _check_finite(name, found)
            made: dict[Kind, npt.NDArray[Any] | None] = {
                "kept_scale": found.scale,
                "kept_zero": found.zero,
                "kept_minimum": found.minimum,
                "kept_factor": found.factor,
                "kept_minimum_factor": found.minimum_factor,
                "kept_order": found.order if first_chunk else None,
            }
            planes = packed_planes(found.codes, form)
            made |= zip(("kept_codes", "kept_plane"), planes, strict=False)
            first_chunk = False
            yield [_as(made[part.kind], part) for part in (entry, *parts)]


def _as(array: npt.NDArray[Any] | None, part: PlannedTensor) -> npt.NDArray[Any] | None:
    return None if array is None else array.astype(NUMPY[part.dtype], copy=False)


def _check_finite(name: str, rows: CodedRows) -> None:
    for what, numbers in (("scales", rows.scale), ("minimums", rows.minimum)):
        bad = 0 if numbers is None else count_not_finite(numbers)
        if bad:
            raise NonFiniteWeightError(
                f"tensor {name!r} of the model: {bad} of its {what} are not finite (NaN or "
                f"infinite); download the model again"
            )
