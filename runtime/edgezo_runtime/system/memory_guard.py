"""The memory guard: compares the memory of the process with its budget at every block boundary.

When memory is short, the engine first takes fewer workers, then streams all blocks, then takes
smaller chunks, and at last ends the run with its state saved. None of this changes a result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edgezo_runtime.system.memory import available_bytes, resident_bytes, swapped_bytes
from edgezo_runtime.system.sizes import format_size

AVAILABLE_EVERY_S = 0.5
"""Interval at which the available memory is read; a read takes a fraction of a millisecond."""

LOW_BYTES = 64 << 20
"""Less available memory than this counts as pressure, whatever the budget."""


LEFT = "left to this process by the machine"
"""Words by which the guard says that the machine is short, not the budget."""


@dataclass(slots=True)
class MemoryGuard:
    """Compares the memory of this process with a budget.

    Attributes:
        budget_bytes: limit of its resident memory.
        margin_bytes: pressure begins this far below the budget. It is the memory that a block can
            still take before the next check.
        resident: returns the resident memory.
        available: returns the memory that the machine, or the control group, has left.
        swapped: returns the memory of the process that was swapped out.
    """

    budget_bytes: int
    margin_bytes: int = 0
    resident: Callable[[], int] = resident_bytes
    available: Callable[[], int] = available_bytes
    swapped: Callable[[], int] = swapped_bytes
    _checked_at: float = field(default=0.0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def pressure(self, *, afresh: bool = False) -> str | None:
        """Describe the shortage; None while there is enough memory.

        Args:
            afresh: read the available memory even if it was read just now.
        """
        used = self.resident()
        if used > self.budget_bytes - self.margin_bytes:
            return f"{format_size(used)} resident of a budget of {format_size(self.budget_bytes)}"
        now = time.monotonic()
        with self._lock:
            due = afresh or now - self._checked_at >= AVAILABLE_EVERY_S
            if due:
                self._checked_at = now
        if due:
            left = self.available()
            if left < LOW_BYTES:
                return f"{format_size(left)} {LEFT}"
            swapped = self.swapped()
            if swapped and used + swapped > self.budget_bytes - self.margin_bytes:
                return f"{format_size(swapped)} swapped out, {format_size(used)} resident"
        return None


class ProcessBudget:
    """The guards of all engines that are open.

    A budget limits resident memory, which is that of the whole process. So each pass stays below
    the smallest budget of all open engines.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guards: tuple[MemoryGuard, ...] = ()

    def hold(self, guard: MemoryGuard) -> None:
        """Keep all passes below a budget until `release`."""
        with self._lock:
            self._guards += (guard,)

    def release(self, guard: MemoryGuard) -> None:
        """Remove a budget; does nothing if it is not held."""
        with self._lock:
            self._guards = tuple(other for other in self._guards if other is not guard)

    def forget(self) -> None:
        """Drop all guards in a forked process: their engines belong to the parent."""
        self._lock, self._guards = threading.Lock(), ()

    def strictest(
        self, own: MemoryGuard | None, instead_of: MemoryGuard | None
    ) -> MemoryGuard | None:
        """The guard with the smallest budget.

        Args:
            own: guard of the engine that asks; None while it has none.
            instead_of: the guard that is held for this engine; `own` replaces it.
        """
        guards = [guard for guard in self._guards if guard is not instead_of]
        guards += [] if own is None else [own]
        return min(guards, key=lambda guard: guard.budget_bytes, default=None)


BUDGET = ProcessBudget()
"""The budget of this process."""
