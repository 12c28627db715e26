"""A memory guard that sees what a test wants it to see."""

from __future__ import annotations

from edgezo_runtime.system.memory_guard import MemoryGuard

MIB = 2**20


class Meter:
    """Resident memory as a test wants it: `high` in the first `times` looks, then nothing."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> int:
        self.left -= 1
        return 200 * MIB if self.left >= 0 else 0


def guard(times: int, available: int = 2**40) -> MemoryGuard:
    return MemoryGuard(100 * MIB, resident=Meter(times), available=lambda: available)
