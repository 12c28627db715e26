"""A checkpoint with more rows in its vocabulary than its files have.

The rows that are missing are the mean of those that are there, or zeros: as
`transformers.PreTrainedModel.resize_token_embeddings` makes them, but without its noise, whose
variance is 1e-9 times that of the rows.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgezo_export.sources.stored_codes import CodedRows, StoredForm

Float32 = npt.NDArray[np.float32]

_CHUNK = 2 << 20
"""Numbers in memory at once."""


class Checkpoint(Protocol):
    """The tensors of a checkpoint, by the names they have there."""

    def names(self) -> list[str]:
        """Return the names of all tensors."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""

    def read(self, name: str) -> Float32:
        """Read a whole tensor."""

    def read_rows(self, name: str, start: int, stop: int) -> Float32:
        """Read rows start..stop of the first axis."""

    def form(self, name: str) -> StoredForm:
        """Return how a tensor is stored."""

    def read_codes(self, name: str, start: int, stop: int) -> CodedRows:
        """Read the codes of rows start..stop."""


class GrownVocabulary:
    """The tensors of a checkpoint, some of them with more rows.

    Args:
        checkpoint: the tensors as they are.
        grown: names of those that grow.
        rows: number of their rows.
        zeros: those among them whose new rows are zeros.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        grown: Collection[str],
        rows: int,
        zeros: Collection[str] = (),
    ) -> None:
        self._checkpoint = checkpoint
        self._grown = frozenset(grown)
        self._rows = rows
        self._zeros = frozenset(zeros)
        self._means: dict[str, Float32] = {}

    def names(self) -> list[str]:
        """Return the names of all tensors, in file order."""
        return self._checkpoint.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, with its new rows."""
        shape = self._checkpoint.shape(name)
        return (self._rows, *shape[1:]) if name in self._grown else shape

    def read(self, name: str) -> Float32:
        """Read a whole tensor as float32."""
        if name not in self._grown:
            return self._checkpoint.read(name)
        return self.read_rows(name, 0, self._rows)

    def read_rows(self, name: str, start: int, stop: int) -> Float32:
        """Read rows start..stop of the first axis as float32."""
        stored = self._checkpoint.shape(name)[0]
        if name not in self._grown or stop <= stored:
            return self._checkpoint.read_rows(name, start, stop)
        known = self._checkpoint.read_rows(name, min(start, stored), stored)
        row = self._new_row(name)
        new = np.broadcast_to(row, (stop - max(start, stored), *row.shape))
        return np.concatenate([known, new])

    def form(self, name: str) -> StoredForm:
        """Return how a tensor is stored; numbers where it grows, as a mean has no code."""
        found = self._checkpoint.form(name)
        return "F32" if name in self._grown and not isinstance(found, str) else found

    def read_codes(self, name: str, start: int, stop: int) -> CodedRows:
        """Read the codes of rows start..stop of a tensor that does not grow."""
        return self._checkpoint.read_codes(name, start, stop)

    def _new_row(self, name: str) -> Float32:
        if name in self._zeros:
            return np.zeros(self._checkpoint.shape(name)[1:], np.float32)
        if name not in self._means:
            rows, *rest = self._checkpoint.shape(name)
            step = max(1, _CHUNK // max(1, int(np.prod(rest))))
            total = np.zeros(rest, np.float64)
            for start in range(0, rows, step):
                chunk = self._checkpoint.read_rows(name, start, min(start + step, rows))
                total += chunk.sum(axis=0, dtype=np.float64)
            self._means[name] = (total / rows).astype(np.float32)
        return self._means[name]
