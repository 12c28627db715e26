"""Where the weights of a graph lie in the mapped file, to be read ahead and dropped."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from edgezo_runtime.bundle.weights import WeightsFile


class FilePages:
    """Stretches of the weights file.

    Args:
        file: the mapped file.
        spans: (first byte, end) of each tensor.
        ahead: the same of the tensors that every pass reads, whatever is routed where.
        reader: one thread that reads ahead.

    Attributes:
        spans: those less than a page apart are one.
        ahead: likewise.
    """

    def __init__(
        self,
        file: WeightsFile,
        spans: Sequence[tuple[int, int]],
        ahead: Sequence[tuple[int, int]],
        reader: ThreadPoolExecutor,
    ) -> None:
        self._file = file
        self.spans, self.ahead = _merged(spans), _merged(ahead)
        self._reader = reader

    @property
    def size_bytes(self) -> int:
        """Bytes of all stretches."""
        return sum(end - start for start, end in self.spans)

    def fetch(self) -> None:
        """Have the system read those ahead that every pass reads; returns at once."""
        with contextlib.suppress(RuntimeError):  # no thread to be had: the pages come when touched
            for start, end in self.ahead:
                self._reader.submit(self._file.fetch, start, end)

    def drop(self) -> None:
        """Let them go; they come back from the file when they are touched."""
        for start, end in self.spans:
            self._file.drop(start, end)


def _merged(spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Spans in order; those less than a page apart are one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start - merged[-1][1] < mmap.PAGESIZE:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return tuple(merged)
