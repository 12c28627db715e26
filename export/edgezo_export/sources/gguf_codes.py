"""The codes in blocks of GGUF files, one type of block after the other.

A row of a matrix is a row of blocks. Types with 32 weights per block have float16 scales; those of
256 weights have a float16 scale and, for each 16 or 32 of the weights, a factor of a few bits.

References:
    ggml-common.h of llama.cpp, block_q4_0 to block_q6_K.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_export.sources.stored_codes import CodedRows, CodeForm, StoredForm

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
_Decode = Callable[[UInt8], CodedRows]
"""Takes (B, bytes) blocks; returns a row of codes, scales, ... for each block."""


@dataclass(frozen=True, slots=True)
class BlockType:
    """A type of block.

    Attributes:
        form: of its codes.
        weights: of a block.
        size_bytes: of a block.
        decode: reads blocks.
    """

    form: CodeForm
    weights: int
    size_bytes: int
    decode: _Decode


def _halves(blocks: UInt8, start: int) -> Float32:
    """The float16 at a byte of every block, (B, 1)."""
    found: Float32 = np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2")
    return found.astype(np.float32)


def _nibbles(bytes_: UInt8) -> UInt8:
    """The low halves of the bytes, then the high ones."""
    return np.concatenate([bytes_ & np.uint8(15), bytes_ >> np.uint8(4)], axis=1)


def _fifth_bits(bytes_: UInt8) -> UInt8:
    """Bit j of the 32 bits of each block is the fifth bit of code j."""
    return np.unpackbits(bytes_, axis=1, bitorder="little") << np.uint8(4)


def _q4_0(blocks: UInt8) -> CodedRows:
    return CodedRows(_nibbles(blocks[:, 2:]), _halves(blocks, 0))


def _q4_1(blocks: UInt8) -> CodedRows:
    return CodedRows(_nibbles(blocks[:, 4:]), _halves(blocks, 0), minimum=_halves(blocks, 2))


def _q5_0(blocks: UInt8) -> CodedRows:
    return CodedRows(_nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6]), _halves(blocks, 0))


def _q5_1(blocks: UInt8) -> CodedRows:
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return CodedRows(codes, _halves(blocks, 0), minimum=_halves(blocks, 2))


def _q8_0(blocks: UInt8) -> CodedRows:
    return CodedRows(blocks[:, 2:] ^ np.uint8(128), _halves(blocks, 0))


def _six_bit_factors(packed: UInt8) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """The factors of the 8 scales and of the 8 minimums, 6 bits each, from (B, 12) bytes."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    six, four, two = np.uint8(63), np.uint8(15), np.uint8(6)
    scales = [first & six, (third & four) | ((first >> two) << np.uint8(4))]
    minimums = [second & six, (third >> np.uint8(4)) | ((second >> two) << np.uint8(4))]
    return tuple(np.concatenate(own, axis=1).view(np.int8) for own in (scales, minimums))  # type: ignore[return-value]


def _chunked_nibbles(bytes_: UInt8) -> UInt8:
    """32 bytes hold 64 codes: the low halves, then the high ones."""
    return _nibbles(bytes_.reshape(-1, 32)).reshape(len(bytes_), -1)


def _k_rows(blocks: UInt8, codes: UInt8) -> CodedRows:
    """The rows of Q4_K and Q5_K, which subtract their minimums."""
    factor, minimum_factor = _six_bit_factors(blocks[:, 4:16])
    return CodedRows(
        codes,
        _halves(blocks, 0),
        minimum=-_halves(blocks, 2),
        factor=factor,
        minimum_factor=minimum_factor,
    )


def _q4_k(blocks: UInt8) -> CodedRows:
    return _k_rows(blocks, _chunked_nibbles(blocks[:, 16:]))


def _q5_k(blocks: UInt8) -> CodedRows:
    bits = blocks[:, 16:48]  # bit j of byte l: the fifth bit of weight l of group j
    high = [((bits >> np.uint8(j)) & np.uint8(1)) << np.uint8(4) for j in range(8)]
    return _k_rows(blocks, _chunked_nibbles(blocks[:, 48:]) | np.concatenate(high, axis=1))


def _q6_k(blocks: UInt8) -> CodedRows:
    parts: list[UInt8] = []
    for half in (0, 1):  # 128 weights each
        low = _nibbles(blocks[:, 64 * half : 64 * half + 64])
        bits = blocks[:, 128 + 32 * half : 160 + 32 * half]
        high = [((bits >> np.uint8(2 * j)) & np.uint8(3)) << np.uint8(4) for j in range(4)]
        parts.append(low | np.concatenate(high, axis=1))
    factor = blocks[:, 192:208].view(np.int8)
    return CodedRows(np.concatenate(parts, axis=1), _halves(blocks, 208), factor=factor)


BLOCKS: dict[str, BlockType] = {
    "Q4_0": BlockType(CodeForm(4, 32, zero=8), 32, 18, _q4_0),
    "Q4_1": BlockType(CodeForm(4, 32, zero=8, minimum=True), 32, 20, _q4_1),
    "Q5_0": BlockType(CodeForm(5, 32, zero=16), 32, 22, _q5_0),
    "Q5_1": BlockType(CodeForm(5, 32, zero=16, minimum=True), 32, 24, _q5_1),
    "Q8_0": BlockType(CodeForm(8, 32, zero=128), 32, 34, _q8_0),
    "Q4_K": BlockType(CodeForm(4, 32, zero=8, minimum=True, factors=8), 256, 144, _q4_k),
    "Q5_K": BlockType(CodeForm(5, 32, zero=16, minimum=True, factors=8), 256, 176, _q5_k),
    "Q6_K": BlockType(CodeForm(6, 16, zero=32, factors=16), 256, 210, _q6_k),
}
"""Types whose codes are kept, as ggml names them."""

FLOATS: dict[str, StoredForm] = {"F64": "F32", "F32": "F32", "F16": "F16", "BF16": "F16"}
"""Types of numbers, and what they are kept as."""


def coded_rows(data: UInt8, kind: str) -> CodedRows:
    """Read (R, bytes) rows of blocks of a type of `BLOCKS`."""
    rows = len(data)
    found = BLOCKS[kind].decode(data.reshape(-1, BLOCKS[kind].size_bytes))

    def wide(part: npt.NDArray[Any] | None) -> Any:
        return None if part is None else part.reshape(rows, -1)

    parts = {field.name: wide(getattr(found, field.name)) for field in fields(CodedRows)}
    return CodedRows(**parts)
