"""The memory guard: when it reports pressure, and whose budget counts."""

from __future__ import annotations

from edgezo_runtime.system.memory_guard import BUDGET, LEFT, LOW_BYTES, MemoryGuard, ProcessBudget
from tests.runtime.memory_meter import MIB, guard


def test_pressure_in_words() -> None:
    assert guard(0).pressure() is None
    assert "210 MB resident of a budget of 105 MB" in str(guard(1).pressure())
    near = MemoryGuard(100 * MIB, margin_bytes=2 * MIB, resident=lambda: 99 * MIB)
    assert near.pressure() is not None
    assert "left to this process" in str(guard(0, available=MIB).pressure())


def test_the_machine_is_not_asked_every_time() -> None:
    asked: list[int] = []

    def available() -> int:
        asked.append(1)
        return 2**40

    watched = MemoryGuard(2**40, resident=lambda: 0, available=available)
    for _ in range(50):
        watched.pressure()
    assert len(asked) < 50


def test_what_was_swapped_out_counts() -> None:
    swapped = MemoryGuard(
        100 * MIB, resident=lambda: 60 * MIB, available=lambda: 2**40, swapped=lambda: 50 * MIB
    )
    assert "swapped out" in str(swapped.pressure())
    swapped = MemoryGuard(
        100 * MIB, resident=lambda: 60 * MIB, available=lambda: 2**40, swapped=lambda: MIB
    )
    assert swapped.pressure() is None


def test_an_afresh_look_is_not_put_off() -> None:
    asked: list[int] = []

    def available() -> int:
        asked.append(1)
        return LOW_BYTES - 1

    short = MemoryGuard(2**40, resident=lambda: 0, available=available)
    assert LEFT in str(short.pressure(afresh=True))
    assert short.pressure() is None  # it was read just now
    assert LEFT in str(short.pressure(afresh=True))
    assert len(asked) == 2


def test_the_smallest_budget_counts() -> None:
    budget = ProcessBudget()
    small, large, own = (MemoryGuard(size * MIB) for size in (10, 30, 20))
    assert budget.strictest(None, None) is None
    budget.hold(large)
    assert budget.strictest(own, None) is own
    budget.hold(small)
    assert budget.strictest(own, None) is small
    assert budget.strictest(own, small) is own  # it is asked for instead of its held one
    assert budget.strictest(None, small) is large
    budget.release(small)
    budget.release(small)
    assert budget.strictest(None, None) is large
    budget.forget()
    assert budget.strictest(None, None) is None


def test_the_process_has_one_budget() -> None:
    held = MemoryGuard(1)
    BUDGET.hold(held)
    try:
        assert BUDGET.strictest(None, None) is held
    finally:
        BUDGET.release(held)
    assert BUDGET.strictest(None, None) is not held
