"""The ladder: stream blocks, smaller chunks, fewer workers, stop."""

from __future__ import annotations

from typing import Any

import pytest

from edgezo_runtime.engine.chunks import SMALLEST_CHUNK_TOKENS, Limits
from edgezo_runtime.engine.memory_relief import MemoryRelief
from edgezo_runtime.engine.sessions import ShortOfMemoryError
from edgezo_runtime.errors import BudgetStopError


class Model:
    """Three blocks, and what was done to them."""

    blocks = (None,) * 3

    def __init__(self) -> None:
        self.done: list[Any] = []

    def drop(self, index: int) -> None:
        self.done.append(index)

    def drop_vocabulary(self) -> None:
        self.done.append("vocabulary")

    def shrink_arena(self) -> None:
        self.done.append("arena")


class Guard:
    """Says that memory is short at the looks with these numbers."""

    def __init__(self, short: set[int]) -> None:
        self.short, self.looks = short, 0

    def pressure(self, afresh: bool = False) -> str | None:
        self.looks += 1
        return "it is full" if self.looks - 1 in self.short else None


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("edgezo_runtime.engine.memory_relief.release_freed", lambda: None)
    model: Any = Model()
    relief = MemoryRelief(model, Limits(2, 64))
    return relief, model


def test_enough_memory_changes_nothing(memory: Any) -> None:
    relief, model = memory
    relief.check(Guard(set()))
    assert (relief.streamed, relief.reliefs, model.done) == (frozenset(), [], [])


def test_first_all_blocks_are_streamed_then_the_pass_fails(memory: Any) -> None:
    relief, model = memory
    guard = Guard({0, 1, 2, 3})
    relief.check(guard)
    assert relief.streamed == {0, 1, 2}
    assert model.done == [0, 1, 2, "vocabulary"]
    assert relief.reliefs == ["it is full: streaming all 3 blocks from now on"]
    with pytest.raises(ShortOfMemoryError, match="it is full"):
        relief.check(guard)


def test_a_second_look_counts(memory: Any) -> None:
    """Another worker may have helped between the first look and the lock."""
    relief, _ = memory
    relief.check(Guard({0}))
    assert relief.streamed == frozenset()


def test_chunks_shrink_then_workers_then_the_run_stops(memory: Any) -> None:
    relief, model = memory
    seen = []
    for _ in range(3):
        relief.shrink("no room")
        seen.append((relief.limits.chunk_tokens, relief.limits.workers))
    with pytest.raises(BudgetStopError, match=r"memory is short: no room;.* 0 of 3 blocks"):
        relief.shrink("no room")
    assert seen == [(32, 2), (SMALLEST_CHUNK_TOKENS, 2), (SMALLEST_CHUNK_TOKENS, 1)]
    assert relief.reliefs[0] == "no room: chunks of 32 tokens from now on"
    assert relief.reliefs[-1] == "no room: 1 of 2 workers from now on"
    assert model.done == ["arena"] * 3


def test_only_streamed_blocks_are_dropped_by_the_way(memory: Any) -> None:
    relief, model = memory
    relief.streamed = frozenset({1})
    for index in range(3):
        relief.drop_streamed(index)
    assert model.done == [1]


def test_all_can_be_given_back(memory: Any) -> None:
    relief, model = memory
    relief.give_back()
    assert model.done == [0, 1, 2, "vocabulary", "arena"]
