"""The cache of keys and values of generated texts on a GPU, where they stay between tokens.

Values of a device are never written to: a block's keys and values are made anew with the tokens
that came, by graphs that come with the runtime. One block at a time is there twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.loaded_model import LoadedModel
from edgezo_runtime.engine.sessions import run_graph
from edgezo_runtime.generation.kv_cache import CachedRows, KvCache, past_shapes, room_for

Int64 = npt.NDArray[np.int64]

TOKENS = "cache_tokens.onnx"
"""past (R, n, P, D), made (R', n, S, D), taken (S',), places (R', n, S', 3) -> kept (R, n, P, D):
tokens `taken` of what was made are put in their places (row, head, token)."""

ROOM = "cache_room.onnx"
"""past (R, n, P, D), more (R, n, Q, D) -> kept (R, n, P + Q, D)."""

ROWS = "cache_rows.onnx"
"""past (R, n, P, D), index (M,) -> kept (M, n, P, D)."""


class DeviceKvCache(CachedRows):
    """Keys and values of R rows, with room for tokens to come; see `KvCache`.

    What `reserve` and `keep` ask for is done when a block is next used: inside a pass, which is run
    again with blocks streamed where the device has no room.

    Args:
        model: its blocks, and the device.
        rows: R.
        most: tokens of the longest row.
        blocks: blocks that run; None for all.

    Memory:
        On the device as `KvCache`, and one block twice; on the host none.
    """

    on_device = True
    nbytes = 0  # of the host

    def __init__(
        self, model: LoadedModel, rows: int, most: int, blocks: frozenset[int] | None = None
    ) -> None:
        super().__init__(rows, most)
        shapes = past_shapes(model.bundle.manifest.graphs)
        self._model = model
        used = range(len(shapes)) if blocks is None else sorted(blocks)
        self._held = {block: _Held(shapes[block], rows) for block in used}
        self._nothing: dict[tuple[int, ...], Any] = {}

    def reserve(self, tokens: int) -> None:
        """Make room for rows of `tokens`."""
        room = room_for(tokens, self._most)
        if room > self._room:
            self._room = room
            self._nothing.clear()

    def keep(self, rows: Int64) -> None:
        """Keep these rows only, moved to the front; a row may come twice."""
        self.lengths = self.lengths[rows]
        for held in self._held.values():
            held.rows = held.rows[rows]
            held.moved = True

    def of(self, block: int, rows: slice) -> tuple[Any, ...]:
        """Keys and values (R', n, room, D) of neighbouring rows, values of the device."""
        pair = self._settled(block).pair
        index = np.arange(self.rows)[rows]
        if len(index) == self.rows:
            return pair
        return tuple(self._run(ROWS, past=past, index=self._model.value(index)) for past in pair)

    def put(self, block: int, rows: Int64, made: Sequence[Any]) -> None:
        """Store keys and values from the first token of some rows on, as far as there is room.

        Args:
            block: the block that made them.
            rows: (R',) the rows that they belong to.
            made: keys and values (R', n, S, D), values of the device.
        """
        self._put(block, rows, np.zeros(len(rows), np.int64), made)

    def put_tokens(self, block: int, rows: slice, made: Sequence[Any], tokens: int) -> None:
        """Store keys and values of more tokens per row, behind its others.

        Args:
            block: the block that made them.
            rows: neighbouring rows.
            made: keys and values (R', n, S, D) of the new tokens alone, values of the device.
            tokens: S.
        """
        self._put(block, np.arange(self.rows)[rows], self.lengths[rows], made)

    def _put(self, block: int, rows: Int64, starts: Int64, made: Sequence[Any]) -> None:
        held = self._settled(block)
        heads = held.shape[0]
        count = min(int(made[0].shape()[2]), self._room - int(starts.max()))
        grid = np.meshgrid(np.arange(len(rows)), np.arange(heads), np.arange(count), indexing="ij")
        row, head, token = grid  # (R', n, S') each
        places = np.stack([rows[row], head, starts[row] + token], axis=-1)
        feed = {
            "taken": self._model.value(np.arange(count)),
            "places": self._model.value(places),
        }
        held.pair = tuple(
            self._run(TOKENS, past=past, made=new, **feed)
            for past, new in zip(held.pair, made, strict=True)
        )

    def _settled(self, block: int) -> _Held:
        """The keys and values of a block, with the rows and the room that were asked for."""
        held = self._held[block]
        if held.moved and held.room:
            index = self._model.value(held.rows)
            held.pair = tuple(self._run(ROWS, past=past, index=index) for past in held.pair)
        if held.moved:
            held.rows, held.moved = np.arange(self.rows), False
        if held.room < self._room:
            heads, width = held.shape
            more = self._zeros((self.rows, heads, self._room - held.room, width))
            if held.room:
                held.pair = tuple(self._run(ROOM, past=past, more=more) for past in held.pair)
            else:
                held.pair = (more, more)
            held.room = self._room
        return held

    def _zeros(self, shape: tuple[int, ...]) -> Any:
        """Zeros of a shape, which all blocks share."""
        if shape not in self._nothing:
            self._nothing[shape] = self._model.value(np.zeros(shape, np.float32))
        return self._nothing[shape]

    def _run(self, graph: str, **feed: Any) -> Any:
        return run_graph(self._model.packaged(graph), ["kept"], feed)[0]


class _Held:
    """Keys and values of one block.

    Attributes:
        shape: heads and width.
        rows: (R,) the rows that are wanted of those that there are.
        moved: are they others than those that there are?
        room: tokens that they have room for.
        pair: keys and values.
    """

    def __init__(self, shape: tuple[int, int], rows: int) -> None:
        self.shape = shape
        self.rows = np.arange(rows)
        self.moved = False
        self.room = 0
        self.pair: tuple[Any, ...] = ()


def text_states(engine: Engine, rows: int, most: int) -> KvCache | DeviceKvCache:
    """An empty cache of R rows where the engine computes."""
    if engine.model.device.form == "gpu":
        return DeviceKvCache(engine.model, rows, most, engine.sampled)
    return KvCache(engine.bundle.manifest.graphs, rows, most, engine.sampled)
