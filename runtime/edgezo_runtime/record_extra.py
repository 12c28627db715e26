"""What a step's record keeps besides seed, rate, blocks and losses.

    extra = milliseconds of the run so far u32 | gradient of the tail, packed | examples (LEB128)

The last is there only once examples were added to those the run began with. How long the gradient
is follows from what trains. `docs/decisions/0003-journal.md` has the rest of the record.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgezo_runtime.errors import RunFileError
from edgezo_runtime.step_record import pack_count, unpack_count

_ELAPSED_BYTES = 4


@dataclass(frozen=True, slots=True)
class RecordExtra:
    """The extra bytes of a record, read.

    Attributes:
        elapsed_s: seconds of the run so far, to the millisecond: where a time-based schedule goes
            on.
        gradient: of the blocks that take first-order steps, packed; empty where there is none.
        rows: examples there were; 0 for those the run began with.
    """

    elapsed_s: float
    gradient: bytes
    rows: int

    def pack(self) -> bytes:
        """The bytes."""
        milliseconds = min(int(self.elapsed_s * 1000), 2**32 - 1)
        rows = pack_count(self.rows) if self.rows else b""
        return milliseconds.to_bytes(_ELAPSED_BYTES, "little") + self.gradient + rows

    @classmethod
    def unpack(cls, data: bytes, gradient_bytes: int) -> RecordExtra:
        """Read what `pack` wrote.

        Args:
            data: the bytes.
            gradient_bytes: of a gradient in them.
        Raises:
            RunFileError: they are of another length.
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
