"""Write a plan of tensors to one .safetensors file, a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgezo_export.quantization.chunk_threads import in_order
from edgezo_export.quantization.group_codes import (
    GroupCodes,
    round_groups,
    round_groups_8bit,
)
from edgezo_export.quantization.kept_plan import ReadCodes, kept_arrays
from edgezo_export.quantization.quantize import (
    NonFiniteWeightError,
    count_not_finite,
    quantize_rows,
    to_unsigned,
)
from edgezo_export.quantization.rotation import rotate_rows
from edgezo_export.quantization.tensor_log import TensorLog
from edgezo_export.quantization.weights_plan import (
    NUMPY,
    PlannedTensor,
    WrittenTensor,
    check_shapes,
    layout,
    steps,
)
from edgezo_export.sources.model_source import TensorReader
from edgezo_runtime.errors import EdgezoError
from edgezo_runtime.system.files import atomic_path, sha256_file, sync_descriptor

_CHUNK_BYTES = 8 << 20  # float32 values read at a time
_STRIP_BYTES = 32 << 20  # transposed values collected before they are written

_MAX_HALF = float(np.finfo(np.float16).max)

Progress = Callable[[int, int], None]
"""Takes the bytes written and the bytes in all."""

MakeCodes = Callable[[PlannedTensor, int], Iterator[GroupCodes]]
"""Takes a planned linear_int4 and the size of its groups; yields codes in the order of outputs."""


@dataclass(frozen=True, slots=True)
class WrittenWeights:
    """The result of `write_weights`; `tensors` has the planned names only, no padding."""

    tensors: dict[str, WrittenTensor]
    size_bytes: int
    sha256: str


def write_weights(
    path: Path,
    plan: Sequence[PlannedTensor],
    source: TensorReader,
    progress: Progress | None = None,
    codes: MakeCodes | None = None,
    log: TensorLog | None = None,
    kept: ReadCodes | None = None,
) -> WrittenWeights:
    """Read, quantize and write every tensor of a plan.

    The file appears under its name only after it is complete and on the disk; with a log it has
    its name at once, and tensors that the log has are not written again.

    Args:
        path: the .safetensors file to write; replaced if it exists.
        plan: the tensors; the scales of every quantized tensor are among them.
        source: the checkpoint.
        progress: called after every tensor read.
        codes: makes the 4-bit codes; each weight is rounded to the nearest one if None.
        log: of the tensors that are written.
        kept: reads the codes of the checkpoint, if the plan has any.
    Returns:
        Places of the tensors, size and SHA-256 of the file.
    Raises:
        ValueError: the plan contradicts itself.
        EdgezoError: a tensor is missing, has another shape or values that are not finite, or the
            disk is full.
    Memory:
        About 70 MB and 40 MB for each thread beyond that of the source, whatever the size of the
        tensors; and what `codes` holds.
    """
    start, places = layout(plan)
    pairs = steps(plan)
    for entry, _ in pairs:
        check_shapes(entry, source)
    total = sum(place.length for place in places.values())
    end = max([len(start), *(place.offset + place.length for place in places.values())])
    try:
        with atomic_path(path) if log is None else nullcontext(path) as file_path:
            written = set() if log is None else log.begin(path, start, places)
            with file_path.open("r+b" if written else "wb") as file:
                _write_at(file, start, 0)
                file.truncate(end)
                done = 0
                for entry, parts in pairs:
                    names = [tensor.name for tensor in (entry, *parts)]
                    if not written.issuperset(names):
                        _write_entry(file, entry, parts, source, places, codes, kept)
                        if log is not None:
                            file.flush()
                            log.add(path, names, places)
                    done += sum(places[name].length for name in names)
                    if progress is not None:
                        progress(done, total)
                if log is not None:
                    file.flush()
                    sync_descriptor(file.fileno())
            digest = sha256_file(file_path)
    except OSError as error:
        raise EdgezoError(f"cannot write {path}: {error.strerror or error}") from error
    return WrittenWeights(places, end, digest)


def _write_entry(
    file: BinaryIO,
    entry: PlannedTensor,
    parts: tuple[PlannedTensor, ...],
    source: TensorReader,
    places: dict[str, WrittenTensor],
    codes: MakeCodes | None,
    kept: ReadCodes | None,
) -> None:
    place = places[entry.name]
    own = [places[part.name] for part in parts]
    if entry.kind == "linear_int8":
        scales: list[npt.NDArray[np.float32]] = []
        chunks = _quantized(_channels(entry, source), scales, rotate_rows)
        _write_columns(file, place, chunks)
        _write_at(file, np.concatenate(scales), own[0].offset)
    elif entry.kind == "embedding_uint8":
        scales = []
        chunks = _quantized(_rows(entry.sources[0], source), scales)
        _write_rows(file, place, (to_unsigned(chunk) for chunk in chunks))
        _write_at(file, np.concatenate(scales), own[0].offset)
    elif entry.kind == "linear_int4":
        size = 2 * entry.shape[1] // parts[0].shape[1]
        made = codes(entry, size) if codes is not None else rounded_codes(entry, size, source)
        _write_side_by_side(
            file, [place, *own], ([c.packed(), c.multipliers, c.scales] for c in made)
        )
    elif entry.kind == "linear_uint8":
        size = entry.shape[1] // parts[0].shape[1]
        made_8bit = in_order(lambda m: round_groups_8bit(m, size), _channels(entry, source))
        _write_side_by_side(file, [place, *own], made_8bit)
    elif entry.kind == "kept_codes":
        if kept is None:
            raise ValueError(f"tensor {entry.name!r}: there is nothing to read codes with")
        rows = [source.shape(name)[0] for name in entry.sources]
        _write_side_by_side(file, [place, *own], kept_arrays(entry, parts, kept, rows))
    else:
        _write_floats(file, entry, place, source)


def _write_floats(
    file: BinaryIO, entry: PlannedTensor, place: WrittenTensor, source: TensorReader
) -> None:
    joined = len(entry.shape) == 2 and (entry.transpose or entry.kind.startswith("concat"))
    chunks = _channels(entry, source) if joined else _all_rows(entry, source)
    write = _write_columns if joined else _write_rows
    write(file, place, _halves(entry, chunks) if entry.dtype == "F16" else chunks)


def rounded_codes(entry: PlannedTensor, size: int, source: TensorReader) -> Iterator[GroupCodes]:
    """Round the weights of a linear_int4 to the nearest codes, some outputs at a time."""
    return in_order(lambda chunk: round_groups(rotate_rows(chunk), size), _channels(entry, source))


def read_float32(entry: PlannedTensor, source: TensorReader) -> npt.NDArray[np.float32]:
    """Read a tensor of the kinds plain and concat, in the form that the file would have.

    Raises:
        NonFiniteWeightError: it has numbers that are not finite.
    """
    values = np.empty(entry.shape, np.float32)
    if len(entry.shape) == 2 and (entry.transpose or entry.kind == "concat"):
        first = 0
        for chunk in _channels(entry, source):
            values[:, first : first + len(chunk)] = chunk.T
            first += len(chunk)
        return values
    flat, first = values.reshape(-1), 0
    for chunk in _all_rows(entry, source):
        flat[first : first + chunk.size] = chunk.reshape(-1)
        first += chunk.size
    return values


def read_tables(plan: Sequence[PlannedTensor], source: TensorReader) -> dict[str, npt.NDArray[Any]]:
    """Read tensors of the kinds plain, concat and embedding_uint8, in the form of the file."""
    found: dict[str, npt.NDArray[Any]] = {}
    for entry, parts in steps(plan):
        if entry.kind != "embedding_uint8":
            found[entry.name] = read_float32(entry, source)
            continue
        scales: list[npt.NDArray[np.float32]] = []
        chunks = _quantized(_rows(entry.sources[0], source), scales)
        table = found[entry.name] = np.empty(source.shape(entry.sources[0]), np.uint8)
        first = 0
        for chunk in chunks:
            table[first : first + len(chunk)] = to_unsigned(chunk)
            first += len(chunk)
        found[parts[0].name] = np.concatenate(scales).reshape(parts[0].shape)
    return found


def _halves(
    entry: PlannedTensor, chunks: Iterator[npt.NDArray[np.float32]]
) -> Iterator[npt.NDArray[np.float16]]:
    """Round to float16.

    Raises:
        EdgezoError: a number is too large.
    """
    for chunk in chunks:
        largest = float(np.abs(chunk).max(initial=0.0))
        if largest > _MAX_HALF:
            raise EdgezoError(
                f"tensor {' or '.join(entry.sources)!r} of the model has a weight of "
                f"{largest:.3g}, and float16 ends at {_MAX_HALF:.0f}; export with another `quant`, "
                f"such as int8"
            )
        yield chunk.astype(np.float16)


def _all_rows(entry: PlannedTensor, source: TensorReader) -> Iterator[npt.NDArray[np.float32]]:
    return (chunk for name in entry.sources for chunk in _rows(name, source))


def _quantized(
    chunks: Iterator[npt.NDArray[np.float32]],
    scales: list[npt.NDArray[np.float32]],
    turn: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]] = lambda rows: rows,
) -> Iterator[npt.NDArray[np.int8]]:
    for values, scale in in_order(lambda chunk: quantize_rows(turn(chunk)), chunks):
        scales.append(scale)
        yield values


def _rows(name: str, source: TensorReader) -> Iterator[npt.NDArray[np.float32]]:
    """Read a tensor in chunks along its first axis.

    Raises:
        NonFiniteWeightError: it has numbers that are not finite.
    """
    chunks = _stored_rows(name, source)
    for chunk in chunks:
        bad = count_not_finite(chunk)
        if bad:
            bad += sum(count_not_finite(other) for other in chunks)
            raise NonFiniteWeightError(
                f"tensor {name!r} of the model: {bad} of its {math.prod(source.shape(name))} "
                f"numbers are not finite (NaN or infinite); download the model again, or export an "
                f"earlier checkpoint of its training"
            )
        yield chunk


def _stored_rows(name: str, source: TensorReader) -> Iterator[npt.NDArray[np.float32]]:
    shape = source.shape(name)
    if not shape:
        yield source.read(name)
        return
    step = max(1, _CHUNK_BYTES // max(1, 4 * math.prod(shape[1:])))
    for first in range(0, shape[0], step):
        yield source.read_rows(name, first, min(first + step, shape[0]))


def _channels(entry: PlannedTensor, source: TensorReader) -> Iterator[npt.NDArray[np.float32]]:
    """Read the output channels of all sources in order, as (channels, in) chunks.

    Raises:
        NonFiniteWeightError: as `_rows`.
    """
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
            for chunk in _rows(name, source):
                strip[:, filled : filled + len(chunk)] = chunk[:, first:last].T
                filled += len(chunk)
            yield strip


def _write_rows(file: BinaryIO, place: WrittenTensor, chunks: Iterator[npt.NDArray[Any]]) -> None:
    position = place.offset
    for chunk in chunks:
        _write_at(file, chunk, position)
        position += chunk.nbytes


def _write_side_by_side(
    file: BinaryIO,
    places: Sequence[WrittenTensor],
    chunks: Iterator[Sequence[npt.NDArray[Any] | None]],
) -> None:
    """Write chunks of rows of several tensors; None where a tensor has no rows in a chunk."""
    positions = [place.offset for place in places]
    for arrays in chunks:
        for index, array in enumerate(arrays):
            if array is None:
                continue
            _write_at(file, array, positions[index])
            positions[index] += array.nbytes


def _write_columns(
    file: BinaryIO, place: WrittenTensor, chunks: Iterator[npt.NDArray[Any]]
) -> None:
    """Write (channels, in) chunks transposed, collecting strips of columns in between."""
    rows, columns = place.shape
    itemsize = place.length // (rows * columns)
    width = min(columns, max(1, _STRIP_BYTES // (rows * itemsize)))
    strip = np.empty((rows, width), NUMPY[place.dtype])
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
