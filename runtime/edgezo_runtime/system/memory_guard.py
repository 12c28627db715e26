"""Watches the memory of the process while the engine runs, at every block boundary.

What the engine does when memory runs short, one thing after the other: stream all blocks, take
smaller chunks, take fewer workers, end the run with its state saved. None of it changes a result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edgezo_runtime.system.memory import available_bytes, resident_bytes, swapped_bytes
from edgezo_runtime.system.sizes import format_size

AVAILABLE_EVERY_S = 0.5
"""How often the memory left to the machine is looked at; reading it takes a fraction of a ms."""

LOW_BYTES = 64 << 20
"""Less than this available to the machine counts as pressure, whatever the budget."""


LEFT = "left to this process by the machine"
"""How the guard says that it is not the budget that is short."""


@dataclass(slots=True)
class MemoryGuard:
    """Compares this process with its budget.

    Attributes:
        budget_bytes: what its resident memory must stay below.
        margin_bytes: pressure begins so much below the budget: what a block can still take before
            the next look.
        resident: tells the resident memory.
        available: tells what the machine, or the control group, has left.
        swapped: tells what of the process was swapped out.
    """

    budget_bytes: int
    margin_bytes: int = 0
    resident: Callable[[], int] = resident_bytes
    available: Callable[[], int] = available_bytes
    swapped: Callable[[], int] = swapped_bytes
    _looked: float = field(default=0.0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def pressure(self, *, afresh: bool = False) -> str | None:
        """What is short, in words; None while there is enough.

        Args:
            afresh: look at the machine even if that was done just now.
        """
        used = self.resident()
        if used > self.budget_bytes - self.margin_bytes:
            return f"{format_size(used)} resident of a budget of {format_size(self.budget_bytes)}"
        now = time.monotonic()
        with self._lock:
            due = afresh or now - self._looked >= AVAILABLE_EVERY_S
            if due:
                self._looked = now
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

    What a budget speaks of, resident memory, is the whole process's. So each pass keeps below the
    smallest budget there is, whoever asked for the pass and whoever gave the budget.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guards: tuple[MemoryGuard, ...] = ()

    def hold(self, guard: MemoryGuard) -> None:
        """Have all passes keep below a budget, until `release`."""
        with self._lock:
            self._guards += (guard,)

    def release(self, guard: MemoryGuard) -> None:
        """Take a budget back; nothing where it is not held."""
        with self._lock:
            self._guards = tuple(other for other in self._guards if other is not guard)

    def forget(self) -> None:
        """In a forked process: the engines are of the other one."""
        self._lock, self._guards = threading.Lock(), ()

    def strictest(
        self, own: MemoryGuard | None, instead_of: MemoryGuard | None
    ) -> MemoryGuard | None:
        """The guard with the smallest budget.

        Args:
            own: of the engine that asks; None while it is not watched.
            instead_of: what it is held as.
        """
        guards = [guard for guard in self._guards if guard is not instead_of]
        guards += [] if own is None else [own]
        return min(guards, key=lambda guard: guard.budget_bytes, default=None)


BUDGET = ProcessBudget()
"""The budget of this process."""
