"""The ladder: fewer workers, stream blocks, smaller chunks, stop; before a pass and inside it."""

from __future__ import annotations

from typing import Any

import pytest

from edgezo_runtime.devices.faults import ShortOfMemoryError
from edgezo_runtime.engine.chunks import SMALLEST_CHUNK_TOKENS, Limits
from edgezo_runtime.engine.memory_relief import MemoryRelief, Reservation
from edgezo_runtime.errors import BudgetStopError
from tests.runtime.memory_meter import guard as budget_of_100_mib


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


class Text:
    """Keys and values of a text."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


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


def test_several_workers_are_halved_first(memory: Any) -> None:
    """A run of first-order steps took thirteen times as long with every block streamed."""
    relief, model = memory
    with pytest.raises(ShortOfMemoryError, match="it is full"):
        relief.check(Guard({0, 1}))
    assert (relief.streamed, model.done) == (frozenset(), [])


def test_one_worker_streams_all_blocks_then_the_pass_fails(memory: Any) -> None:
    relief, model = memory
    relief.limits = Limits(1, 64)
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


def test_workers_are_halved_then_chunks_then_the_run_stops(memory: Any) -> None:
    relief, model = memory
    seen = []
    for _ in range(3):
        relief.shrink("no room")
        seen.append((relief.limits.chunk_tokens, relief.limits.workers))
    with pytest.raises(BudgetStopError, match=r"memory is short: no room;.* 0 of 3 blocks"):
        relief.shrink("no room")
    assert seen == [(64, 1), (32, 1), (SMALLEST_CHUNK_TOKENS, 1)]
    assert relief.reliefs[0] == "no room: 1 of 2 workers from now on"
    assert relief.reliefs[-1] == "no room: chunks of 16 tokens from now on"
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


MIB = 2**20
NONE, ALL = frozenset[int](), frozenset(range(3))
HALF = Limits(1, 64).smaller() or Limits(1)
SMALLER = [HALF, HALF.smaller() or HALF]
PEAKS = {
    (Limits(2, 64), NONE): 95 * MIB,
    (Limits(1, 64), NONE): 90 * MIB,
    (Limits(1, 64), ALL): 80 * MIB,
    (SMALLER[0], ALL): 75 * MIB,
    (SMALLER[1], ALL): 75 * MIB,
}


@pytest.mark.parametrize(
    ("held", "kept", "workers", "tokens", "streamed"),
    [
        (5, 5, 2, 64, NONE),  # fits as it is
        (9, 0, 2, 64, NONE),  # the arena gives back what it holds
        (9, 9, 1, 64, NONE),
        (99, 19, 1, 64, ALL),
        (99, 24, 1, 32, ALL),
        (99, 99, 1, 16, ALL),  # it fits nowhere, and the guard will see
    ],
)
def test_a_pass_is_reserved_before_it_begins(
    memory: Any,
    monkeypatch: pytest.MonkeyPatch,
    held: int,
    kept: int,
    workers: int,
    tokens: int,
    streamed: frozenset[int],
) -> None:
    """The process holds `held` MiB besides the plan, and `kept` once the arena gave back. Beside
    two busy programs a run looked too late, and took 503 MB of 500."""
    relief, model = memory
    monkeypatch.setattr(
        "edgezo_runtime.engine.memory_relief.anonymous_bytes",
        lambda: (10 + (kept if "arena" in model.done else held)) * MIB,
    )
    relief.reservation = Reservation(10 * MIB, PEAKS)
    relief.reserve(budget_of_100_mib(0))
    assert (relief.limits.workers, relief.limits.chunk_tokens) == (workers, tokens)
    assert relief.streamed == streamed
    assert ("arena" in model.done) == (held > 5)
    assert len(relief.reliefs) == (workers < 2) + (streamed == ALL) + (tokens < 64) + (tokens < 32)


def test_a_way_that_nobody_planned_is_not_reserved(memory: Any) -> None:
    relief, model = memory
    relief.reserve(budget_of_100_mib(0))
    relief.reservation = Reservation(0, {})
    relief.reserve(budget_of_100_mib(0))
    assert (relief.reliefs, model.done) == ([], [])


def test_waves_that_a_plan_widened_are_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan knows a way to run by its usual waves; what larger ones hold adds to the peak."""
    monkeypatch.setattr("edgezo_runtime.engine.memory_relief.anonymous_bytes", lambda: 0)
    all_blocks = frozenset({0, 1, 2})
    reservation = Reservation(0, {(Limits(2, wave_bytes=100), all_blocks): 1000})
    assert reservation.peak((Limits(2, wave_bytes=100), all_blocks)) == 1000
    assert reservation.peak((Limits(2, wave_bytes=130), all_blocks)) == 1030
    assert reservation.peak((Limits(2, wave_bytes=70), all_blocks)) is None
    assert reservation.peak((Limits(1, wave_bytes=130), all_blocks)) is None
    assert reservation.peak((Limits(2, wave_bytes=130), frozenset({0}))) is None


def test_texts_count_once_as_far_as_a_plan_left_room_for_them(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation during a served answer counted its keys and values twice, and streamed."""
    relief, _ = memory
    monkeypatch.setattr(
        "edgezo_runtime.engine.memory_relief.anonymous_bytes", lambda: (10 + 12) * MIB
    )
    guard = budget_of_100_mib(0)
    relief.texts.add(states := Text(12 * MIB))  # 7 are planned, and 5 are free with two workers
    relief.reservation = Reservation(10 * MIB, PEAKS, texts_bytes=7 * MIB)
    relief.reserve(guard)
    assert relief.reliefs == []
    relief.reservation = Reservation(10 * MIB, PEAKS, texts_bytes=6 * MIB)
    relief.reserve(guard)
    assert relief.limits.workers == 1
    del states  # the text has ended
    assert not relief.texts


def test_what_passes_learned_counts_once(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    relief, _ = memory
    monkeypatch.setattr("edgezo_runtime.engine.memory_relief.anonymous_bytes", lambda: 22 * MIB)
    relief.reservation = Reservation(10 * MIB, PEAKS)
    relief.learned_bytes = 7 * MIB
    relief.reserve(budget_of_100_mib(0))
    assert relief.reliefs == []
    relief.learned_bytes = 6 * MIB
    relief.reserve(budget_of_100_mib(0))
    assert relief.limits.workers == 1
