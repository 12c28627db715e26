"""The matrices of single experts, whichever way a checkpoint stores them.

A model class has the matrices of all experts of a layer as one parameter P of three axes. Expert e
is the matrix "P[e].weight" of an export. A checkpoint holds either P itself, or the matrices of
every expert, some of which follow each other in P[e] (gate and up).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgezo_export.sources.stored_codes import CodedRows, StoredForm, joined_rows

_EXPERT = re.compile(r"(.+)\[(\d+)\]\.weight")

Float32 = npt.NDArray[np.float32]


class Tensors(Protocol):
    """The tensors of a checkpoint, by the names they have there."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""

    def read_rows(self, name: str, start: int, stop: int) -> Float32:
        """Read rows start..stop of the first axis."""


def expert_name(parameter: str, index: int) -> str:
    """Return the module path of an expert's matrix, without ".weight"."""
    return f"{parameter}[{index}]"


@dataclass(frozen=True, slots=True)
class ExpertMatrix:
    """The matrix of one expert in a checkpoint.

    Attributes:
        tensors: the checkpoint.
        whole: name of the tensor with all experts; None where each has tensors of its own.
        index: number of the expert.
        parts: names of its tensors, which follow each other along the first axis.
    """

    tensors: Tensors
    whole: str | None
    index: int
    parts: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the matrix."""
        if self.whole is not None:
            return self.tensors.shape(self.whole)[1:]
        shapes = [self.tensors.shape(name) for name in self.parts]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def read_rows(self, start: int, stop: int) -> Float32:
        """Read rows start..stop."""
        if self.whole is not None:
            whole: Float32 = self.tensors.read_rows(self.whole, self.index, self.index + 1)[0]
            return whole[start:stop]
        found = [self.tensors.read_rows(name, *own) for name, own in self._spans(start, stop)]
        return np.concatenate(found)

    def form(self, form_of: Callable[[str], StoredForm]) -> StoredForm:
        """Return how the checkpoint stores it; as numbers where its tensors differ.

        Args:
            form_of: returns the form of a tensor.
        """
        forms = {form_of(name) for name in self.parts or (self.whole or "",)}
        if len(forms) == 1 and not (self.whole and not isinstance(next(iter(forms)), str)):
            return forms.pop()
        return "F32"

    def read_codes(
        self, read: Callable[[str, int, int], CodedRows], start: int, stop: int
    ) -> CodedRows:
        """Read the codes of rows start..stop, where all its tensors have codes of one form."""
        return joined_rows([read(name, *own) for name, own in self._spans(start, stop)])

    def _spans(self, start: int, stop: int) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield the tensors that rows start..stop lie in, and their rows there."""
        first = 0
        for name in self.parts:
            last = first + self.tensors.shape(name)[0]
            if start < last and stop > first:
                yield name, (max(start, first) - first, min(stop, last) - first)
            first = last


class ExpertNames:
    """Finds the tensors of experts.

    Args:
        transforms: what transformers does to the tensors when it loads the model.
        stored: returns the names in the checkpoint that stand for a parameter.
    """

    def __init__(self, transforms: Iterable[Any], stored: Callable[[str], list[str]]) -> None:
        self._stored = stored
        self._merged = _merged(transforms)

    def find(self, name: str, tensors: Tensors) -> ExpertMatrix | None:
        """Return the matrix of that name; None if it is not that of an expert, or missing."""
        found = _EXPERT.fullmatch(name)
        if found is None:
            return None
        parameter, index = found[1], int(found[2])
        whole = self._stored(parameter)
        if whole:
            return ExpertMatrix(tensors, whole[0], index, ())
        for target, sources in self._merged:
            if parameter.endswith(target):
                front = parameter.removesuffix(target)
                parts = [self._stored(front + own.replace("*", str(index))) for own in sources]
                if all(parts):
                    return ExpertMatrix(tensors, None, index, tuple(part[0] for part in parts))
        return None


def _merged(transforms: Iterable[Any]) -> list[tuple[str, tuple[str, ...]]]:
    """List the parameters that transformers merges from those of every expert on loading."""
    from transformers.core_model_loading import Concatenate, MergeModulelist, WeightConverter

    found: list[tuple[str, tuple[str, ...]]] = []
    for transform in transforms:
        if type(transform) is not WeightConverter:
            continue
        operations: list[Any] = transform.operations
        kinds = [
            (type(operation), operation.dim)
            for operation in operations[:2]
            if isinstance(operation, MergeModulelist | Concatenate)
        ]
        if len(kinds) == len(operations) and kinds in (
            [(MergeModulelist, 0)],
            [(MergeModulelist, 0), (Concatenate, 1)],
        ):
            found.append((transform.target_patterns[0], tuple(transform.source_patterns)))
    return found
