"""The float weights of a bundle, read under the names of the checkpoint that it was made from.

A bundle joins the matrices of layers that share their input, and has them as (in, out). The plan of
the bundle says which part of which tensor a matrix of the checkpoint is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_export.quantization.weights_plan import NUMPY, PlannedTensor
from edgezo_runtime.bundle.weights import read_header
from edgezo_runtime.errors import BundleError

Float32 = npt.NDArray[np.float32]

_OTHER_VERSION = (
    "another version of transformers or edgezo made the bundle, or its manifest is damaged; export "
    "the model again"
)


@dataclass(frozen=True, slots=True)
class _Part:
    """Outputs first..first + size of a tensor that joins several; of one that joins none, all."""

    tensor: PlannedTensor
    first: int
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the checkpoint."""
        shape = self.tensor.shape
        if len(shape) < 2 or not self.joins:
            turned = len(shape) == 2 and self.tensor.transpose
            return (self.size,) if self.joins else (shape[::-1] if turned else shape)
        return (self.size, shape[0]) if self.tensor.transpose else (shape[0], self.size)

    @property
    def joins(self) -> bool:
        """Is the tensor made of several, or of one in the same way?"""
        return self.tensor.kind in ("concat", "concat_half")


class StoredWeights:
    """Tensors of a weights file in float32 or float16, with the methods of a `TensorReader`.

    Args:
        path: the file.
        plan: of all its tensors.
        shapes: of the parameters of the model, where a tensor joins several.
    Raises:
        BundleError: the file is no weights file, or lacks a tensor of the plan, or a parameter of
            the plan is none of the model.
        ValueError: the plan has a tensor that is not stored as floats.
    Memory:
        What is read; the file is not mapped.
    """

    def __init__(
        self,
        path: Path,
        plan: Sequence[PlannedTensor],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._path = path
        self._stored = read_header(path)
        self._parts: dict[str, _Part] = {}
        for tensor in plan:
            if tensor.kind not in ("plain", "plain_half", "concat", "concat_half"):
                raise ValueError(f"tensor {tensor.name!r} is stored as {tensor.kind}")
            stored = self._stored.get(tensor.name)
            expected = tensor.shape, np.dtype(NUMPY[tensor.dtype])
            if stored is None or (stored.shape, stored.dtype) != expected:
                found = f"{stored.shape} of {stored.dtype}" if stored else "missing"
                raise BundleError(
                    f"{path}: tensor {tensor.name!r} is {found}, expected {tensor.shape} of "
                    f"{expected[1]}: {_OTHER_VERSION}"
                )
            self._add(tensor, shapes)

    def _add(self, tensor: PlannedTensor, shapes: Mapping[str, tuple[int, ...]]) -> None:
        if len(tensor.sources) == 1:
            whole = tensor.shape[-1] if tensor.shape else 1
            self._parts.setdefault(tensor.sources[0], _Part(tensor, 0, whole))
            return
        first = 0
        for source in tensor.sources:
            if not shapes.get(source):
                raise BundleError(
                    f"{self._path}: tensor {tensor.name!r} has the values of {source!r}, which is "
                    f"no parameter of the model: {_OTHER_VERSION}"
                )
            size = shapes[source][-1 if len(tensor.shape) == 2 and not tensor.transpose else 0]
            self._parts.setdefault(source, _Part(tensor, first, size))
            first += size

    def names(self) -> list[str]:
        """Return the names in the checkpoint."""
        return list(self._parts)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor in the checkpoint."""
        return self._parts[name].shape

    def read(self, name: str) -> Float32:
        """Read a whole tensor."""
        shape = self.shape(name)
        return self.read_rows(name, 0, shape[0]) if shape else self._rows(self._parts[name], 0, 1)

    def read_rows(self, name: str, start: int, stop: int) -> Float32:
        """Read rows start..stop of the first axis, as the checkpoint has them."""
        part = self._parts[name]
        if len(part.tensor.shape) < 2:
            first = part.first if part.joins else 0
            return self._rows(part, first + start, first + stop)
        if not part.tensor.transpose:
            rows = self._rows(part, start, stop)
            return rows[:, part.first : part.first + part.size] if part.joins else rows
        first = part.first if part.joins else 0
        return self._columns(part, first + start, first + stop)

    def _rows(self, part: _Part, start: int, stop: int) -> Float32:
        """Read rows of the tensor as it is stored."""
        stored = self._stored[part.tensor.name]
        width = math.prod(stored.shape[1:])
        offset = stored.offset + start * width * stored.dtype.itemsize
        found = np.fromfile(self._path, stored.dtype, (stop - start) * width, offset=offset)
        shape = (stop - start, *stored.shape[1:]) if stored.shape else ()
        return found.astype(np.float32, copy=False).reshape(shape)

    def _columns(self, part: _Part, start: int, stop: int) -> Float32:
        """Read columns of the tensor as it is stored, (columns, rows)."""
        stored = self._stored[part.tensor.name]
        rows, width = stored.shape
        size = stored.dtype.itemsize
        found = np.empty((stop - start, rows), np.float32)
        with self._path.open("rb") as file:
            for row in range(rows):
                file.seek(stored.offset + (row * width + start) * size)
                found[:, row] = np.fromfile(file, stored.dtype, stop - start)
        return found
