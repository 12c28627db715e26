"""Measures against a shortage of memory, from the cheapest in time to the most expensive.

1. Halve the number of workers, down to one.
2. Stream every block: fetch its weights before they are used, and drop them afterwards.
3. Halve the chunks.
4. Stop the run.

Before a pass begins, what it may take is reserved: the same measures are taken until it fits. At
block boundaries the guard checks what nobody planned. There blocks are streamed inside the pass;
for the other measures the pass that was short of memory runs again.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet

from edgezo_runtime.devices.faults import ShortOfMemoryError
from edgezo_runtime.engine.chunks import Limits
from edgezo_runtime.engine.loaded_model import LoadedModel
from edgezo_runtime.system.memory import anonymous_bytes, release_freed
from edgezo_runtime.system.memory_errors import budget_stop
from edgezo_runtime.system.memory_guard import MemoryGuard
from edgezo_runtime.system.sizes import format_size

Way = tuple[Limits, frozenset[int]]
"""A way to run: limits, and the streamed blocks."""


class HoldsBytes(Protocol):
    """Something that takes memory, and knows how much."""

    @property
    def nbytes(self) -> int:
        """Bytes held now."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What passes take, as a plan measured it.

    Attributes:
        anonymous_bytes: anonymous memory of the process without passes.
        peaks: predicted peak of the process by the way to run.
        texts_bytes: of every peak, what is left for texts that are generated between passes.
    """

    anonymous_bytes: int
    peaks: Mapping[Way, int]
    texts_bytes: int = 0

    def peak(self, way: Way, texts: int = 0, learned: int = 0) -> int | None:
        """Peak of the process if a pass begins now, in bytes.

        What the process holds beyond the plan counts besides the pass: the arena may find no use
        for the holes in it.

        Args:
            way: how it would run.
            texts: bytes that texts hold; as many as the peaks have left for them count once.
            learned: bytes that stay behind passes which learn; the peaks have them.
        Returns:
            The peak, or None if the plan does not know this way to run.
        """
        planned = self._planned(*way)
        if planned is None:
            return None
        known = self.anonymous_bytes + min(texts, self.texts_bytes) + learned
        return planned + max(0, anonymous_bytes() - known)

    def _planned(self, limits: Limits, streamed: frozenset[int]) -> int | None:
        """Peak by plan; larger waves than those of the plan add to it."""
        if (limits, streamed) in self.peaks:
            return self.peaks[limits, streamed]
        for (known, blocks), peak in self.peaks.items():
            alike = dataclasses.replace(known, wave_bytes=limits.wave_bytes) == limits
            if alike and blocks == streamed and known.wave_bytes < limits.wave_bytes:
                return peak + limits.wave_bytes - known.wave_bytes
        return None


class MemoryRelief:
    """Decides how much of a model and of a batch is in memory, and reduces it if memory is short.

    Args:
        model: its weights and its arena are released when memory is short.
        limits: initial limits on how much of a batch is in memory at once.

    Attributes:
        limits: how much of a batch is in memory at once.
        streamed: blocks that are fetched from the file for each use, and dropped afterwards.
        reliefs: descriptions of the measures taken so far.
        reservation: what passes take; None where nothing was planned.
        texts: keys and values of the texts that are being generated.
        learned_bytes: what stays in memory of what passes have learned.
    """

    def __init__(self, model: LoadedModel, limits: Limits) -> None:
        self.limits = limits
        self.streamed: frozenset[int] = frozenset()
        self.reliefs: list[str] = []
        self.reservation: Reservation | None = None
        self.texts: WeakSet[HoldsBytes] = WeakSet()
        self.learned_bytes = 0
        self._model = model
        self._lock = threading.Lock()

    def drop_streamed(self, index: int) -> None:
        """Drop a block's weights if it is streamed; called when a chunk has left the block."""
        if index in self.streamed:
            self._model.drop(index)

    def check(self, guard: MemoryGuard) -> None:
        """Stream every block, if one worker is left, when memory is short. Called by any worker.

        Args:
            guard: says whether memory is short.
        Raises:
            ShortOfMemoryError: it is, and several workers can be halved, or every block is streamed
                already.
        """
        if guard.pressure() is None:
            return
        with self._lock:
            reason = guard.pressure(afresh=True)  # another worker may have helped in the meantime
            if reason is None:
                return
            if self.limits.workers > 1 or not self._stream(reason):
                raise ShortOfMemoryError(reason)

    def reserve(self, guard: MemoryGuard) -> None:
        """Make room for a pass before it begins; called where no pass runs.

        The arena first gives back what it does not need. If the pass does not fit in the smallest
        way to run either, it begins nevertheless, and the guard checks it.

        Args:
            guard: has the budget.
        """
        if self._excess(guard) is None:
            return
        self._model.shrink_arena()
        while (reason := self._excess(guard)) is not None:
            smaller = self._halve_workers(reason) or self._stream(reason)
            if not smaller and not self._halve_chunks(reason):
                return

    def _excess(self, guard: MemoryGuard) -> str | None:
        """Say how far a pass would exceed the budget; None if it would not."""
        if self.reservation is None:
            return None
        texts = sum(text.nbytes for text in self.texts)
        peak = self.reservation.peak((self.limits, self.streamed), texts, self.learned_bytes)
        if peak is None or peak <= guard.budget_bytes:
            return None
        budget = format_size(guard.budget_bytes)
        return f"a pass may take the process to {format_size(peak)} of a budget of {budget}"

    def _stream(self, reason: str) -> bool:
        """Stream every block; False if they are all streamed."""
        count = len(self._model.blocks)
        everything = frozenset(range(count))
        if self.streamed == everything:
            return False
        self.streamed = everything
        self._drop_weights()
        self.reliefs.append(f"{reason}: streaming all {count} blocks from now on")
        return True

    def _halve_workers(self, reason: str) -> bool:
        """Halve the number of workers; False if one is left."""
        count = self.limits.workers
        if count == 1:
            return False
        fewer = dataclasses.replace(self.limits, workers=count // 2)
        self._take(fewer, reason, f"{fewer.workers} of {count} workers")
        return True

    def _halve_chunks(self, reason: str) -> bool:
        """Halve the chunks; False if they are as small as they can be."""
        smaller = self.limits.smaller()
        if smaller is None:
            return False
        self._take(smaller, reason, f"chunks of {smaller.chunk_tokens} tokens")
        return True

    def _take(self, limits: Limits, reason: str, told: str) -> None:
        """Change the limits, and tell."""
        self.limits = limits
        self.reliefs.append(f"{reason}: {told} from now on")

    def shrink(self, reason: str, *, stream: bool = False) -> None:
        """Halve the workers, then the chunks, and give back what the arena does not need.

        Args:
            reason: what is short, in words.
            stream: stream every block first, as where the memory of a GPU is short.
        Raises:
            BudgetStopError: nothing is left to halve.
        """
        streams = stream and self._stream(reason)
        if not (streams or self._halve_workers(reason) or self._halve_chunks(reason)):
            raise budget_stop(
                reason,
                f"; chunks are as small as they can be, one worker is left and "
                f"{len(self.streamed)} of {len(self._model.blocks)} blocks are streamed; give the "
                f"run more memory: a larger `budget` if that is short, or a smaller `max_seq`",
            )
        self._model.shrink_arena()
        release_freed()

    def give_back(self) -> None:
        """Release everything that can be loaded or computed again."""
        self._drop_weights()
        self._model.shrink_arena()
        release_freed()

    def _drop_weights(self) -> None:
        for index in range(len(self._model.blocks)):
            self._model.drop(index)
        self._model.drop_vocabulary()
