"""Places in the line: taken before a body is read, and free when nobody waits any more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgezo.serve.refusals import Refusal
from edgezo.serve.writing_line import Job, WritingLine
from tests.edgezo.serve.conftest import wait_until


@pytest.fixture
def line() -> Iterator[WritingLine]:
    found = WritingLine(1)
    yield found
    found.close()


def _text(go: threading.Event) -> Callable[[Callable[[], None]], Iterator[object]]:
    def work(check: Callable[[], None]) -> Iterator[object]:
        yield "begun"
        while not go.is_set():
            check()
            time.sleep(0.005)
        yield "ended"

    return work


async def _entered(line: WritingLine, go: threading.Event) -> Job:
    job = Job(asyncio.get_running_loop())
    line.enter(job)
    line.submit(job, _text(go))
    return job


def _after(line: WritingLine) -> int:
    """Seconds after which a job that finds the line full should come back."""
    with pytest.raises(Refusal) as refused:
        line.enter(Job(asyncio.get_running_loop()))
    assert refused.value.status == 429
    return int(refused.value.headers["Retry-After"])


def test_places_of_those_who_left_are_free(line: WritingLine) -> None:
    async def talk() -> None:
        go = threading.Event()
        first, second = await _entered(line, go), await _entered(line, go)
        assert await first.events.get() == "begun"
        before = _after(line)
        line.leave(second)
        assert line.waiting == 1
        third = Job(asyncio.get_running_loop())
        line.enter(third)  # its body still has to come
        assert _after(line) == before
        line.leave(third)
        line.leave(first)  # is being written: its place is free when that has stopped
        ended: Any = await first.events.get()
        assert ended.status == 503
        wait_until(lambda: line.waiting == 0)
        jobs = [await _entered(line, go) for _ in range(2)]
        assert _after(line) == before  # texts that were not written to their end tell nothing
        go.set()
        for job in jobs:
            assert [await job.events.get() for _ in range(3)] == ["begun", "ended", None]
        assert second.events.empty()  # never written

    asyncio.run(talk())


def test_a_job_that_waits_is_told_of_the_end(line: WritingLine) -> None:
    async def talk() -> None:
        go = threading.Event()
        jobs = [await _entered(line, go) for _ in range(2)]
        assert await jobs[0].events.get() == "begun"
        line.close()
        for job in jobs:
            told: Any = await job.events.get()
            assert (told.status, told.code) == (503, "stopping")
        with pytest.raises(Refusal, match="being stopped"):
            await _entered(line, go)

    asyncio.run(talk())
