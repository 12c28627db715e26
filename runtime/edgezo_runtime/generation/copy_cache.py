"""Perturbed copies of trainables that every token of a text uses again."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from edgezo_runtime.engine.params import Params

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class CopyCache:
    """The copies that `Params` make for some texts, made once.

    Args:
        params: of one group, by number of the text.
        numbers: of the texts, ascending.
    Memory:
        One copy of the trainables that differ, or one per text where every text has its own.
    """

    def __init__(self, params: Params, numbers: Int64) -> None:
        self._params = params
        self._numbers = numbers
        self._made: dict[str, Float32] = {}
        self._lock = threading.Lock()

    @property
    def private(self) -> bool:
        """Has every text its own copies?"""
        return self._params.private

    def copies(self, name: str, rows: Int64) -> Float32:
        """(1, *shape), or (len(rows), *shape) for texts given by number."""
        with self._lock:
            whole = self._made.get(name)
            if whole is None:
                whole = self._made[name] = self._params.copies(name, self._numbers)
        return whole if len(whole) == 1 else whole[np.searchsorted(self._numbers, rows)]


class TextParams:
    """`Params` by number of the text, for rows of texts of which some have ended.

    Args:
        params: of all texts.
        numbers: (R,) the text of each row.
    """

    def __init__(self, params: Params, numbers: Int64) -> None:
        self._params = params
        self._numbers = numbers

    @property
    def private(self) -> bool:
        """Has every text its own copies?"""
        return self._params.private

    def copies(self, name: str, rows: Int64) -> Float32:
        """The copies of the texts in some rows."""
        return self._params.copies(name, self._numbers[rows])
