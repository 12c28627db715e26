"""The codes of a quantized checkpoint, as they are.

    w = scale[n, g] * (code[n, k] - zero[n, g]) + minimum[n, g]        k in group g of n
    scale[n, g] = scale'[n, s] * factor[n, g]                          g in super-group s

A code has 4, 5, 6 or 8 bits. The zero is one number for all groups or one for each. The minimum and
the factors are optional. NF4 has 16 numbers in place of code - zero.

Where the inputs of a group do not follow each other (act-order), they are put in an order in which
they do; a product reorders what it multiplies in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

NF4 = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)
"""The numbers of NF4 (Dettmers et al. 2023, QLoRA, arXiv:2305.14314, appendix E)."""

_PLANES = {4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}
"""Bits of a code -> bits of the planes that store it, the lowest bits first."""

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CodeForm:
    """How the codes of a matrix are stored.

    Attributes:
        bits: of a code: 4, 5, 6 or 8.
        size: inputs of a group.
        zero: the code of 0 before the minimum is added; None: each group has one of its own.
        minimum: has a group a number that is added?
        factors: groups of a super-group, whose factors are int8; 0 for none.
        scale: type of scales and minimums, F16 where that is exact.
        nf4: stands a code for a number of `NF4`?
        order: names the order of the inputs; empty for their own.
    """

    bits: int
    size: int
    zero: int | None = 0
    minimum: bool = False
    factors: int = 0
    scale: Literal["F16", "F32"] = "F16"
    nf4: bool = False
    order: str = ""

    @property
    def planes(self) -> tuple[int, ...]:
        """Bits of each plane of the codes."""
        return _PLANES[self.bits]


StoredForm = CodeForm | Literal["F16", "F32"]
"""How a checkpoint stores a tensor: as codes, or as numbers of at most 16 or 32 bits."""


@dataclass(frozen=True, slots=True)
class CodedRows:
    """Rows of a matrix in codes; R rows, K inputs, G groups, S super-groups (or groups).

    Attributes:
        codes: (R, K).
        scale: (R, S).
        zero: (R, G), where the groups have zeros of their own.
        minimum: (R, S), where there is one.
        factor: (R, G) int8, where the form has factors.
        minimum_factor: (R, G) int8, where the form has factors and a minimum.
        order: (K,) int32, the input that each column is for, where the form has an order.
    """

    codes: UInt8
    scale: Float32
    zero: UInt8 | None = None
    minimum: Float32 | None = None
    factor: npt.NDArray[np.int8] | None = None
    minimum_factor: npt.NDArray[np.int8] | None = None
    order: npt.NDArray[np.int32] | None = None

    def values(self, form: CodeForm) -> Float32:
        """Compute the (R, K) weights, inputs in the order of the model."""
        rows, width = self.codes.shape
        groups = (rows, width // form.size, form.size)
        scale = _fine(self.scale, self.factor)[..., None]
        if form.nf4:
            found = NF4[self.codes].reshape(groups) * scale
        else:
            zero = np.full((1, 1, 1), form.zero or 0, np.int32)
            if self.zero is not None:
                zero = self.zero.astype(np.int32)[..., None]
            found = (self.codes.reshape(groups).astype(np.int32) - zero).astype(np.float32) * scale
        if self.minimum is not None:
            # The zero of such forms is the middle of the codes, which the minimum does not know of.
            own = _fine(self.minimum, self.minimum_factor)[..., None]
            found = found + (own + scale * np.float32(form.zero or 0))
        values: Float32 = found.reshape(rows, width)
        if self.order is None:
            return values
        ordered = np.empty_like(values)
        ordered[:, self.order] = values
        return ordered

    def taken(self, which: Any) -> CodedRows:
        """Return the rows of an index."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return CodedRows(
            **{
                name: part if part is None or name == "order" else part[which]
                for name, part in parts.items()
            }
        )


def joined_rows(parts: list[CodedRows]) -> CodedRows:
    """Put rows of one form below each other."""
    if len(parts) == 1:
        return parts[0]
    found: dict[str, Any] = {}
    for field in fields(CodedRows):
        own = [getattr(part, field.name) for part in parts]
        if own[0] is not None:
            found[field.name] = own[0] if field.name == "order" else np.concatenate(own)
    return CodedRows(**found)


def _fine(coarse: Float32, factor: npt.NDArray[np.int8] | None) -> Float32:
    """Multiply the numbers of super-groups by the factors of their groups."""
    if factor is None:
        return coarse
    each = factor.shape[1] // coarse.shape[1]
    return np.repeat(coarse, each, axis=1) * factor.astype(np.float32)
