"""Tiles of a frozen matrix: the outputs that are made ready for a product together.

Codes become int8 or float32 numbers before they are multiplied. A matrix of 4,096 x 14,336 in
float32 takes 235 MB; its tiles take 8 MiB, one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder

NUMBERS = 2 << 20
"""Numbers of a tile. Unpacked, it stays in the cache of a core: a w4 layer of 4,096 x 14,336 took
94 ms of a core for 64 tokens, and 135 ms in tiles of four times the size."""

_ALIGNED = 64
"""Outputs of a tile are a multiple of this: the kernels take so many at a time."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Outputs start..stop of a layer.

    Attributes:
        start: the first one.
        stop: the end.
        whole: are these all outputs of the layer?
        used: (1,) int64, 0 where the tile is not needed and 1 where it is; None if it always is.
        least: outputs of a tile that is not needed; operators on quantized numbers need one, as
            ONNX Runtime does not survive an empty tensor there.
    """

    start: int
    stop: int
    whole: bool
    used: ir.Value | None = None
    least: int = 0

    def outputs(self, layer: str) -> int | str:
        """Its size; a name where it may be another one.

        Args:
            layer: makes the name one of its own. ONNX Runtime takes dimensions of one name for
                equal, and lets values of such shapes share memory.
        """
        size = self.stop - self.start
        return size if self.used is None else f"outputs {self.start} of {layer}"

    def of(self, draft: GraphBuilder, values: ir.Value, axis: int) -> ir.Value:
        """Append the part of values whose `axis` has the outputs of the layer."""
        if self.whole and self.used is None:
            return values
        start, stop = draft.ints(self.start), draft.ints(self.stop)
        if self.used is not None:
            first = self.start + self.least
            size = draft.op("Mul", self.used, draft.ints(self.stop - first))
            stop = draft.op("Add", draft.ints(first), size)
        return draft.op("Slice", values, start, stop, draft.ints(axis))


def tiles_of(width: int, outputs: int, used: ir.Value | None = None, least: int = 0) -> list[Tile]:
    """Cut a matrix into tiles of about equal size, `NUMBERS` at most where that is a tile.

    Args:
        width: inputs of the layer.
        outputs: outputs of the layer.
        used: as in `Tile`.
        least: as in `Tile`.
    """
    count = -(-width * outputs // NUMBERS)
    step = -(-outputs // count)
    step += -step % _ALIGNED
    if step * width > NUMBERS and step > _ALIGNED:
        step -= _ALIGNED
    starts = range(0, outputs, step)
    whole = len(starts) == 1
    return [Tile(s, min(s + step, outputs), whole, used, least) for s in starts]


def joined(draft: GraphBuilder, parts: Sequence[ir.Value]) -> ir.Value:
    """Append the products of all tiles side by side."""
    return parts[0] if len(parts) == 1 else draft.op("Concat", *parts, axis=-1)
