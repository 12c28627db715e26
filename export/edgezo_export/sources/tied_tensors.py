"""Tensors that a model ties, where the checkpoint has values of their own for them.

A config can say that the head of a model is its embedding, while the checkpoint holds a head that
was trained on. transformers then leaves the two apart, and so does an export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import EdgezoError

_CHUNK = 2 << 20
"""Numbers in memory at once."""


class Tensors(Protocol):
    """The tensors of a checkpoint, by the names they have there."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """Read a whole tensor."""

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Read rows start..stop of the first axis."""


def separate_tensors(
    tied: Mapping[str, str], stored: Callable[[str], list[str]], checkpoint: Tensors
) -> dict[str, tuple[str, str]]:
    """Find the tied parameters whose values in the checkpoint differ from what they are tied to.

    Args:
        tied: parameter -> the parameter it is tied to.
        stored: returns the names in the checkpoint that stand for a parameter.
        checkpoint: the tensors.
    Returns:
        Parameter -> its name in the checkpoint, and that of the tensor it is tied to.
    Raises:
        EdgezoError: several tensors that differ stand for one parameter, or the two have different
            shapes.
    """
    found: dict[str, tuple[str, str]] = {}
    for name, owner in tied.items():
        own, shared = (only_tensor(each, stored(each), checkpoint) for each in (name, owner))
        if own is None or shared is None or own == shared:
            continue
        if checkpoint.shape(own) != checkpoint.shape(shared):
            raise EdgezoError(
                f"tensor {own!r} is {checkpoint.shape(own)}, {shared!r} is "
                f"{checkpoint.shape(shared)}, and the config ties the two (tie_word_embeddings); "
                f"remove the wrong one, or set tie_word_embeddings to false in config.json"
            )
        if not same_values(own, shared, checkpoint):
            found[name] = own, shared
    return found


def only_tensor(parameter: str, names: list[str], checkpoint: Tensors) -> str | None:
    """Return the tensor that stands for a parameter; None if there is none.

    Raises:
        EdgezoError: there are several, and they differ.
    """
    for other in names[1:]:
        same = checkpoint.shape(names[0]) == checkpoint.shape(other)
        if not same or not same_values(names[0], other, checkpoint):
            raise EdgezoError(
                f"tensors {names[0]!r} and {other!r} differ, and both can stand for "
                f"{parameter!r}; remove the one that is not meant from the checkpoint"
            )
    return names[0] if names else None


def same_values(first: str, second: str, checkpoint: Tensors) -> bool:
    """Do two tensors of one shape hold the same numbers?"""
    shape = checkpoint.shape(first)
    if not shape:
        return np.array_equal(checkpoint.read(first), checkpoint.read(second))
    step = max(1, _CHUNK // max(1, int(np.prod(shape[1:]))))
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        one, other = (checkpoint.read_rows(name, start, stop) for name in (first, second))
        if not np.array_equal(one, other):
            return False
    return True
