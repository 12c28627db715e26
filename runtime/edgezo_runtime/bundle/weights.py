"""The frozen weights of a bundle: a safetensors file that is mapped, never read as a whole."""

from __future__ import annotations

import math
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import BundleError, DoesNotFitError
from edgezo_runtime.system.files import open_regular
from edgezo_runtime.system.safetensors_reader import (
    StoredTensor,
    TensorHeaderError,
    read_tensor_header,
)
from edgezo_runtime.system.sizes import format_size

__all__ = ["READ_AHEAD_BYTES", "StoredTensor", "WeightsFile", "read_header"]

READ_AHEAD_BYTES = 128 << 10
"""The usual read-ahead of a disk in Linux."""

_DTYPES = frozenset(
    np.dtype(kind) for kind in (np.float32, np.float16, np.int32, np.int8, np.uint8)
)
"""Dtypes that graphs take."""


class WeightsFile:
    """Tensors of a .safetensors file as views of one read-only map.

    Pages come from the file when they are touched and can be dropped by the kernel at any time.

    Args:
        path: the file.
    Raises:
        BundleError: not a safetensors file, or its header does not fit its size.
        DoesNotFitError: there are not enough addresses left to map it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors = read_header(path)
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, MemoryError) as error:
                raise DoesNotFitError(
                    f"{path}: {format_size(size)} of weights cannot be mapped: {error}; raise "
                    f"'ulimit -v', or use a smaller model"
                ) from error
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)

    def view(self, name: str, dtype: str, shape: tuple[int, ...], start: int = 0) -> Any:
        """Rows of a tensor, seen as `shape`.

        Args:
            name: the tensor.
            dtype: expected dtype of the tensor, as numpy names it.
            shape: shape of the result; its values follow each other in the file.
            start: first row (index along the tensor's first axis).
        Raises:
            BundleError: there is no such tensor, or its dtype or size differs.
        """
        stored = self.tensors.get(name)
        if stored is None:
            raise self._error(f"tensor {name!r:.80} is missing")
        row = stored.length // stored.shape[0] if stored.shape else stored.length
        first = stored.offset + start * row
        length = math.prod(shape) * stored.dtype.itemsize
        inside = start >= 0 and first + length <= stored.offset + stored.length
        if stored.dtype != np.dtype(dtype) or not inside:
            raise self._error(
                f"tensor {name!r:.80} is {stored.dtype} {stored.shape}; a graph reads "
                f"{dtype} {shape} from row {start} of it"
            )
        return self._bytes[first : first + length].view(stored.dtype).reshape(shape)

    def span(self, name: str) -> tuple[int, int]:
        """First byte and end of a tensor in the file."""
        stored = self.tensors[name]
        return stored.offset, stored.offset + stored.length

    def fetch(self, start: int, end: int) -> None:
        """Ask the system to read ahead; does nothing if the system has no such call.

        Each call covers no more than the read-ahead of the disk, as Linux ignores the rest.
        """
        for first in range(start, end, READ_AHEAD_BYTES):
            self._advise("MADV_WILLNEED", first, min(first + READ_AHEAD_BYTES, end))

    def drop(self, start: int, end: int) -> None:
        """Drop the pages of these bytes from memory; does nothing if the system has no such call.

        Views stay valid: a page that is touched again is read from the file.
        """
        self._advise("MADV_DONTNEED", start, end)

    def _advise(self, what: str, start: int, end: int) -> None:
        advice = getattr(mmap, what, None)
        first = start - start % mmap.PAGESIZE
        if advice is not None and end > first:
            self._map.madvise(advice, first, end - first)

    def _error(self, message: str) -> BundleError:
        return BundleError(f"{self.path}: {message}; run 'edgezo export --force'")


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Read the header of the file: its tensors of the dtypes that graphs take.

    Raises:
        BundleError: not a safetensors file, or its header does not fit its size.
    """
    try:
        found = {
            name: stored
            for name, stored in read_tensor_header(path).tensors.items()
            if stored.dtype in _DTYPES
        }
        for name, stored in found.items():
            if not stored.length or stored.offset % stored.dtype.itemsize:
                raise TensorHeaderError(f"tensor {name[:80]!r} is empty or not aligned")
    except (TensorHeaderError, OSError) as error:
        raise BundleError(
            f"{path}: not a safetensors file: {error}; run 'edgezo export --force'"
        ) from error
    return found
