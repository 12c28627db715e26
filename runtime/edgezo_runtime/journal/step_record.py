"""The record of one step in the journal: everything that replay needs and cannot compute."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.trainables import MAX_BLOCKS
from edgezo_runtime.errors import RunFileError, UsageError

_FIXED = struct.Struct("<QQf")  # step, seed, lr


@dataclass(frozen=True, eq=False)
class StepRecord:
    """One step of a run. Two records are equal if their bytes are.

    Attributes:
        step: from 0.
        seed: seed of the estimator, 0 to 2**64 - 1.
        lr: learning rate of the step, rounded to float32.
        blocks: the active blocks, ascending.
        losses: (probes, rows) from `record_losses`, read-only float32. The probes of an estimator
            that yields several times follow each other.
        extra: other bytes that replay needs; see `RecordExtra`.

    Raises:
        UsageError: a value is out of range.
    """

    step: int
    seed: int
    lr: float
    blocks: tuple[int, ...]
    losses: npt.NDArray[np.floating[Any]]
    extra: bytes = b""

    def __post_init__(self) -> None:
        for what, value in (("step", self.step), ("seed", self.seed)):
            if not 0 <= value < 2**64:
                raise UsageError(f"step record: {what} must be 0 to 2**64 - 1, not {value}")
        if any(b < 0 for b in self.blocks) or list(self.blocks) != sorted(set(self.blocks)):
            raise UsageError(f"step record: blocks must ascend from 0 on, not {self.blocks}")
        losses = np.array(self.losses, np.float32)
        if losses.ndim != 2:
            raise UsageError(f"step record: losses must be (probes, rows), not {losses.shape}")
        losses.flags.writeable = False
        object.__setattr__(self, "losses", losses)
        object.__setattr__(self, "lr", float(np.float32(self.lr)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StepRecord) and self.pack() == other.pack()

    def __hash__(self) -> int:
        return hash(self.pack())

    def pack(self) -> bytes:
        """Write the record as bytes; `docs/decisions/0003-journal.md` has the layout.

        Returns:
            33 bytes for a two-point step of neighbouring blocks.
        """
        return b"".join(
            (
                _FIXED.pack(self.step, self.seed, self.lr),
                pack_blocks(self.blocks),
                pack_count(self.losses.shape[0]),
                pack_count(self.losses.shape[1]),
                self.losses.astype("<f4").tobytes(),
                self.extra,
            )
        )

    @classmethod
    def unpack(cls, data: bytes) -> StepRecord:
        """Read a record that `pack` wrote.

        Args:
            data: the whole record.

        Returns:
            An equal record.

        Raises:
            RunFileError: the bytes are not a record.
        """
        try:
            step, seed, lr = _FIXED.unpack_from(data)
            blocks, offset = unpack_blocks(data, _FIXED.size)
            probes, offset = unpack_count(data, offset)
            rows, offset = unpack_count(data, offset)
            end = offset + 4 * probes * rows
            if end > len(data) or (probes == 0) != (rows == 0):
                raise ValueError(f"losses of {probes} probes and {rows} rows in {len(data)} bytes")
            losses = np.frombuffer(data[offset:end], "<f4").reshape(probes, rows)
            if not np.isfinite(losses).all():
                raise ValueError("a loss is not finite")
            return cls(step, seed, lr, blocks, losses.astype(np.float32), data[end:])
        except (struct.error, IndexError, ValueError) as error:
            raise RunFileError(f"not a step record: {error}") from error


def pack_count(value: int) -> bytes:
    """Write an integer, 0 or more, as LEB128: 7-bit groups, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def unpack_count(data: bytes, offset: int) -> tuple[int, int]:
    """Read an integer that `pack_count` wrote; return it and the offset behind it.

    Raises:
        IndexError: the bytes end before the integer does.
        ValueError: it does not fit in 64 bits, or `pack_count` would write other bytes.
    """
    value = shift = 0
    while True:
        octet = data[offset]
        offset += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            if value >= 2**64 or (not octet and shift):
                raise ValueError("an integer that is not in its shortest form")
            return value, offset
        shift += 7
        if shift > 63:
            raise ValueError("an integer longer than 64 bits")


def pack_blocks(blocks: Sequence[int]) -> bytes:
    """Write ascending block indices in the shorter of two forms.

    Runs of neighbours: twice the number of runs, then for each run the gap since the last run and
    its length minus one. Bits, the lowest first: twice the number of octets plus one, then the
    octets.
    """
    runs: list[list[int]] = []  # [first, behind the last]
    for block in blocks:
        if runs and runs[-1][1] == block:
            runs[-1][1] += 1
        else:
            runs.append([block, block + 1])
    out = pack_count(2 * len(runs))
    position = 0
    for first, behind in runs:
        out += pack_count(first - position) + pack_count(behind - first - 1)
        position = behind
    octets = position // 8 + 1
    if len(out) <= octets:
        return out
    mask = sum(1 << block for block in blocks).to_bytes(octets, "little").rstrip(b"\0")
    as_bits = pack_count(2 * len(mask) + 1) + mask
    return min(out, as_bits, key=len)


def unpack_blocks(data: bytes, offset: int) -> tuple[tuple[int, ...], int]:
    """Read block indices that `pack_blocks` wrote; return them and the offset behind them.

    Raises:
        IndexError: the bytes end too early.
        ValueError: a block index is too large.
    """
    count, offset = unpack_count(data, offset)
    runs, bits = divmod(count, 2)
    if bits:
        return _unpack_bits(data, offset, runs)
    blocks: list[int] = []
    position = 0
    for _ in range(runs):
        gap, offset = unpack_count(data, offset)
        more, offset = unpack_count(data, offset)
        first, position = position + gap, position + gap + more + 1
        if position > MAX_BLOCKS:
            raise ValueError(f"block index {position - 1}")
        blocks.extend(range(first, position))
    return tuple(blocks), offset


def _unpack_bits(data: bytes, offset: int, octets: int) -> tuple[tuple[int, ...], int]:
    mask = data[offset : offset + octets]
    if len(mask) < octets or not octets or 8 * octets > MAX_BLOCKS + 7 or not mask[-1]:
        raise ValueError(f"blocks as {octets} octets of bits")
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    found = tuple(int(block) for block in np.flatnonzero(bits))
    if found[-1] >= MAX_BLOCKS:
        raise ValueError(f"block index {found[-1]}")
    return found, offset + octets


_ELAPSED_BYTES = 4


@dataclass(frozen=True, slots=True)
class RecordExtra:
    """The content of a record's extra bytes.

    Attributes:
        elapsed_s: seconds of the run so far, to the millisecond; a resumed time-based schedule
            starts from it.
        gradient: of the blocks that take first-order steps, packed; empty without such blocks.
        rows: number of examples at that step; 0 stands for the number at the start of the run.
    """

    elapsed_s: float
    gradient: bytes
    rows: int

    def pack(self) -> bytes:
        """Return the extra bytes."""
        milliseconds = min(int(self.elapsed_s * 1000), 2**32 - 1)
        rows = pack_count(self.rows) if self.rows else b""
        return milliseconds.to_bytes(_ELAPSED_BYTES, "little") + self.gradient + rows

    @classmethod
    def unpack(cls, data: bytes, gradient_bytes: int) -> RecordExtra:
        """Read extra bytes that `pack` wrote.

        Args:
            data: the bytes.
            gradient_bytes: length of the gradient in them.
        Raises:
            RunFileError: the bytes have another length.
        """
        end = _ELAPSED_BYTES + gradient_bytes
        gradient = data[_ELAPSED_BYTES:end]
        if len(gradient) != gradient_bytes:
            raise RunFileError(
                f"a step's gradient has {len(gradient)} bytes in the journal, expected "
                f"{gradient_bytes}"
            )
        rows = 0
        if len(data) > end:
            try:
                rows, last = unpack_count(data, end)
            except (IndexError, ValueError) as error:
                raise RunFileError(f"a step's count of examples is damaged: {error}") from error
            if last != len(data) or not rows:
                raise RunFileError(f"a step's record has {len(data) - end} bytes too many")
        return cls(int.from_bytes(data[:_ELAPSED_BYTES], "little") / 1000, gradient, rows)
