"""The budget of the process, where several tuners have one each."""

from __future__ import annotations

import os
import threading

from edgezo_runtime.guard import MemoryGuard


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

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=BUDGET.forget)
