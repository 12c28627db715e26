"""The order in which chunks pass blocks, on one thread and on two, resident and streamed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.engine.chunks import Chunk, Cutter, Limits
from edgezo_runtime.engine.memory_relief import MemoryRelief
from edgezo_runtime.engine.scheduler import Scheduler
from edgezo_runtime.engine.sessions import ENVIRONMENT

BLOCKS, CHUNKS = 3, 4


class Pass:
    """Notes what it is asked for: (stage, number of the chunk)."""

    groups = 1

    def __init__(
        self,
        broken: tuple[Any, int] | None = None,
        before: Any = None,
        back_to: int | None = None,
    ) -> None:
        self.seen: list[tuple[Any, int]] = []
        self.back_to = back_to
        self._broken, self._before = broken, before
        self._lock = threading.Lock()

    def note(self, stage: Any, chunk: Chunk) -> None:
        with self._lock:
            self.seen.append((stage, int(chunk.index[0])))
        if self.seen[-1] == self._broken:
            raise ValueError("broken")

    def before(self, wave: Any, cutter: Cutter) -> Any:
        made, self._before = self._before, None
        return made

    def start(self, chunk: Chunk) -> None:
        self.note("start", chunk)

    def block(self, index: int, chunk: Chunk) -> None:
        self.note(index, chunk)

    def end(self, chunk: Chunk) -> None:
        self.note("end", chunk)

    def back(self, index: int, chunk: Chunk) -> None:
        self.note(-index, chunk)

    def skips(self, index: int) -> bool:
        return False

    def wave_bytes(self, chunk: Chunk) -> int:
        return 0


class Model:
    """Blocks of 10 bytes; notes which are fetched and dropped."""

    blocks = (None,) * BLOCKS

    def __init__(self) -> None:
        self.fetched: list[int] = []
        self.dropped: list[int] = []

    def block_bytes(self, index: int) -> int:
        return 10

    def fetch(self, index: int) -> None:
        self.fetched.append(index)

    def drop(self, index: int) -> None:
        self.dropped.append(index)

    def drop_vocabulary(self) -> None:
        pass


def chunk_of(number: int) -> Chunk:
    return Chunk(np.array([number]), 2, np.empty((0, 2), np.int64), slice(0))


@pytest.fixture
def threads() -> Iterator[None]:
    """Two workers."""
    ENVIRONMENT.prepare(2, None)
    yield
    ENVIRONMENT.release()


def run(
    workers: int, streamed: set[int], forward: Any, *, alone: bool = False, **limits: int
) -> Any:
    model: Any = Model()
    limit = Limits(workers, **limits)
    memory = MemoryRelief(model, limit)
    memory.streamed = frozenset(streamed)
    chunks = [chunk_of(number) for number in range(CHUNKS)]
    scheduler = Scheduler(model, memory)
    scheduler.alone = alone
    scheduler.run(forward, chunks, Cutter(limit, 64, 4))
    return SimpleNamespace(model=model, seen=forward.seen)


STAGES = ["start", *range(BLOCKS), "end"]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("streamed", [set(), {1}, {0, 1, 2}])
@pytest.mark.parametrize("workers", [1, 2])
def test_every_chunk_passes_all_stages_in_order(workers: int, streamed: set[int]) -> None:
    done = run(workers, streamed, Pass(), wave_bytes=1)
    for number in range(CHUNKS):
        assert [stage for stage, chunk in done.seen if chunk == number] == STAGES
    if streamed:
        assert set(done.model.dropped) == streamed


@pytest.mark.usefixtures("threads")
def test_resident_chunks_go_through_one_after_the_other() -> None:
    done = run(1, set(), Pass())
    assert done.seen == [(stage, number) for number in range(CHUNKS) for stage in STAGES]
    assert done.model.dropped == []


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("streamed", [set(), {0, 1, 2}])
def test_a_rehearsal_computes_one_chunk_at_a_time(streamed: set[int]) -> None:
    """Which stages of two workers coincided was another matter in every rehearsal."""
    both = run(2, streamed, Pass(), alone=True, fetch_bytes=10)
    assert both.seen == run(1, streamed, Pass(), fetch_bytes=10).seen


@pytest.mark.usefixtures("threads")
def test_a_wave_crosses_a_streamed_block_before_the_next_is_entered() -> None:
    done = run(1, {0, 1, 2}, Pass(), fetch_bytes=10)
    assert done.seen == [(stage, number) for stage in STAGES for number in range(CHUNKS)]
    assert done.model.dropped == [0, 1, 2]
    assert done.model.fetched == [1, 2]  # the first is read when it is touched


BACK = [*STAGES, -2, -1]
"""A chunk that goes back to block 1."""


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("streamed", [set(), {1}, {0, 1, 2}])
@pytest.mark.parametrize("workers", [1, 2])
def test_every_chunk_goes_back_in_order(workers: int, streamed: set[int]) -> None:
    done = run(workers, streamed, Pass(back_to=1), wave_bytes=1)
    for number in range(CHUNKS):
        assert [stage for stage, chunk in done.seen if chunk == number] == BACK
    if not streamed and workers == 1:
        assert done.seen == [(stage, number) for number in range(CHUNKS) for stage in BACK]


@pytest.mark.usefixtures("threads")
def test_a_wave_goes_back_through_a_streamed_block_before_the_next_is_fetched() -> None:
    """Pins blocks that every chunk fetched for itself on its way back."""
    done = run(1, {0, 1, 2}, Pass(back_to=1), fetch_bytes=10)
    assert done.seen == [(stage, number) for stage in BACK for number in range(CHUNKS)]
    assert done.model.dropped == [0, 1, 2, 2, 1]  # once per direction, not once per chunk
    assert done.model.fetched == [1, 2, 2, 1]


@pytest.mark.usefixtures("threads")
def test_chunks_go_back_through_a_stretch_from_its_last_block() -> None:
    """Blocks 0 and 1 are a stretch, block 2 is another."""
    done = run(1, {0, 1, 2}, Pass(back_to=0), fetch_bytes=20)
    back = done.seen[-3 * CHUNKS :]
    both = [(stage, number) for number in range(CHUNKS) for stage in (-1, 0)]
    assert back == [*((-2, number) for number in range(CHUNKS)), *both]
    assert done.model.dropped[3:] == [2, 0, 1]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("at", [1, -1])
def test_blocks_that_are_streamed_from_now_on_are_dropped(workers: int, at: int) -> None:
    """Memory gets short in the middle of a wave, on its way there or back."""

    class Short(Pass):
        memory: Any = None

        def note(self, stage: Any, chunk: Chunk) -> None:
            super().note(stage, chunk)
            if stage == at:
                self.memory.streamed = frozenset(range(BLOCKS))

    model: Any = Model()
    limits = Limits(workers, fetch_bytes=10)
    forward = Short(back_to=0)
    forward.memory = MemoryRelief(model, limits)
    forward.memory.streamed = frozenset({0})
    chunks = [chunk_of(number) for number in range(CHUNKS)]
    Scheduler(model, forward.memory).run(forward, chunks, Cutter(limits, 64, 4))
    for number in range(CHUNKS):
        seen = [stage for stage, chunk in forward.seen if chunk == number]
        assert seen == [*STAGES, -2, -1, 0]
    assert model.dropped[-1] == 0
    assert {1, *([2] if at > 0 else [])} <= set(model.dropped)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("streamed", [set(), {0, 1, 2}])
def test_what_has_to_be_evaluated_before_comes_first(streamed: set[int]) -> None:
    first = Pass()
    forward = Pass(before=(first, [chunk_of(9)]))
    first.seen = forward.seen
    done = run(1, streamed, forward)
    assert done.seen[: len(STAGES)] == [(stage, 9) for stage in STAGES]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("streamed", [set(), {0, 1, 2}])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("at", [1, -1], ids=["there", "back"])
def test_an_error_ends_the_pass_and_leaves_no_thread_at_work(
    at: int, workers: int, streamed: set[int]
) -> None:
    forward = Pass(broken=(at, 0), back_to=0)
    with pytest.raises(ValueError, match="broken"):
        run(workers, streamed, forward)
    seen = list(forward.seen)
    path = [*STAGES, -2, -1]
    assert [stage for stage, chunk in seen if chunk == 0] == path[: path.index(at) + 1]
    if workers == 1 and not streamed:
        assert {chunk for _, chunk in seen} == {0}  # the other chunks do not begin
    ENVIRONMENT.workers.submit(lambda: None).result()  # a worker is free
    assert forward.seen == seen
