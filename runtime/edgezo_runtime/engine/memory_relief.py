"""Measures against a shortage of memory, from the cheapest in time to the most expensive.

1. Stream every block: fetch its weights before they are used, and drop them afterwards. This
   happens at a block boundary, inside a pass.
2. Halve the chunks. This happens between passes; the pass that was short of memory runs again.
3. Halve the number of workers, in the same way.
4. Stop the run.
"""

from __future__ import annotations

import dataclasses
import threading

from edgezo_runtime.engine.chunks import Limits
from edgezo_runtime.engine.loaded_model import LoadedModel
from edgezo_runtime.engine.sessions import ShortOfMemoryError
from edgezo_runtime.system.memory import release_freed
from edgezo_runtime.system.memory_errors import budget_stop
from edgezo_runtime.system.memory_guard import MemoryGuard


class MemoryRelief:
    """Decides how much of a model and of a batch is in memory, and reduces it if memory is short.

    Args:
        model: its weights and its arena are released when memory is short.
        limits: initial limits on how much of a batch is in memory at once.

    Attributes:
        limits: how much of a batch is in memory at once.
        streamed: blocks that are fetched from the file for each use, and dropped afterwards.
        reliefs: descriptions of the measures taken so far.
    """

    def __init__(self, model: LoadedModel, limits: Limits) -> None:
        self.limits = limits
        self.streamed: frozenset[int] = frozenset()
        self.reliefs: list[str] = []
        self._model = model
        self._lock = threading.Lock()

    def drop_streamed(self, index: int) -> None:
        """Drop a block's weights if it is streamed; called when a chunk has left the block."""
        if index in self.streamed:
            self._model.drop(index)

    def check(self, guard: MemoryGuard) -> None:
        """Stream every block the first time that memory is short. Called by any worker.

        Args:
            guard: says whether memory is short.
        Raises:
            ShortOfMemoryError: it is, and every block is streamed already.
        """
        if guard.pressure() is None:
            return
        with self._lock:
            reason = guard.pressure(afresh=True)  # another worker may have helped in the meantime
            if reason is None:
                return
            count = len(self._model.blocks)
            everything = frozenset(range(count))
            if self.streamed == everything:
                raise ShortOfMemoryError(reason)
            self.streamed = everything
            self._drop_weights()
            self.reliefs.append(f"{reason}: streaming all {count} blocks from now on")

    def shrink(self, reason: str) -> None:
        """Halve the chunks, then the workers, and give back what the arena does not need.

        Args:
            reason: what is short, in words.
        Raises:
            BudgetStopError: nothing is left to halve.
        """
        smaller = self.limits.smaller()
        if smaller is not None:
            told = f"chunks of {smaller.chunk_tokens} tokens"
        elif self.limits.workers > 1:
            smaller = dataclasses.replace(self.limits, workers=self.limits.workers // 2)
            told = f"{smaller.workers} of {self.limits.workers} workers"
        else:
            raise budget_stop(
                reason,
                f"; chunks are as small as they can be, one worker is left and "
                f"{len(self.streamed)} of {len(self._model.blocks)} blocks are streamed; give the "
                f"run more memory: a larger `budget` if that is short, or a smaller `max_seq`",
            )
        self.limits = smaller
        self._model.shrink_arena()
        release_freed()
        self.reliefs.append(f"{reason}: {told} from now on")

    def give_back(self) -> None:
        """Release everything that can be loaded or computed again."""
        self._drop_weights()
        self._model.shrink_arena()
        release_freed()

    def _drop_weights(self) -> None:
        for index in range(len(self._model.blocks)):
            self._model.drop(index)
        self._model.drop_vocabulary()
