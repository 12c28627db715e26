"""Streams and subscribers, without a run."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from pathlib import Path

import pytest

from edgezo_runtime.app.event_streams import MOST_EVENTS, EventHub, EventStream
from edgezo_runtime.app.events import CheckpointEvent, Event, ResumeEvent


def events(count: int) -> list[Event]:
    return [ResumeEvent(step) for step in range(count)]


def test_a_stream_gives_what_came_and_ends() -> None:
    hub = EventHub()
    with hub.stream() as early:
        for event in events(3):
            hub.emit(event)
        late = hub.stream()
        hub.emit(CheckpointEvent(3, Path("s")))
        hub.close()
        assert list(early) == [*events(3), CheckpointEvent(3, Path("s"))]
    assert list(late) == [CheckpointEvent(3, Path("s"))]
    assert list(hub.stream()) == []


def test_a_stream_that_nobody_reads_keeps_the_last_events() -> None:
    stream = EventStream()
    for event in events(MOST_EVENTS + 5):
        stream.put(event)
    assert stream.missed == 5
    stream.close()
    assert list(stream) == events(MOST_EVENTS + 5)[5:]


def test_nothing_is_kept_of_those_who_left() -> None:
    """A service opens a stream for every client that listens."""
    hub = EventHub()
    left = [weakref.ref(hub.stream()), weakref.ref(hub.subscribe(lambda event: None).stream)]
    kept = hub.stream()
    hub.emit(ResumeEvent(0))
    for stream in left:
        found = stream()
        assert found is not None
        found.close()
        del found
    hub.emit(ResumeEvent(1))
    end = time.monotonic() + 10
    while any(stream() is not None for stream in left) and time.monotonic() < end:
        time.sleep(0.001)  # the subscriber's thread ends
    assert [stream() for stream in left] == [None, None]
    hub.close()
    assert list(kept) == [ResumeEvent(0), ResumeEvent(1)]


def test_waiting_for_an_event_has_an_end() -> None:
    stream = EventStream()
    assert stream.get(0.01) is None
    threading.Timer(0.05, stream.put, [ResumeEvent(1)]).start()
    assert stream.get(10) == ResumeEvent(1)
    threading.Timer(0.05, stream.close).start()
    assert stream.get() is None


def test_a_subscriber_is_told_in_order_by_another_thread() -> None:
    hub, told = EventHub(), list[Event]()
    threads = set()

    def take(event: Event) -> None:
        told.append(event)
        threads.add(threading.current_thread())

    hub.subscribe(take)
    for event in events(50):
        hub.emit(event)
    hub.close()
    assert told == events(50)
    assert threading.current_thread() not in threads


def test_a_slow_subscriber_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgezo_runtime.app.event_streams.JOIN_S", 0.1)
    hub, let_go = EventHub(), threading.Event()
    hub.subscribe(lambda event: let_go.wait(30))
    started = time.monotonic()
    for event in events(100):
        hub.emit(event)
    hub.close()
    assert time.monotonic() - started < 5
    let_go.set()


def test_a_subscriber_that_fails_is_told_of_the_next_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub, told = EventHub(), list[int]()

    def fail_first(event: Event) -> None:
        told.append(event.step)
        if event.step == 0:
            raise KeyError("mine")

    with caplog.at_level(logging.ERROR):
        hub.subscribe(fail_first)
        for event in events(3):
            hub.emit(event)
        hub.close()
    assert told == [0, 1, 2]
    assert "a subscriber failed on ResumeEvent" in caplog.text


def test_a_subscriber_may_leave_and_may_close_the_hub() -> None:
    hub, told = EventHub(), list[Event]()
    leaving = hub.subscribe(told.append)
    leaving.close()
    hub.emit(ResumeEvent(0))
    done = threading.Event()

    def close(event: Event) -> None:
        hub.close()
        done.set()

    hub.subscribe(close)
    hub.emit(ResumeEvent(1))
    assert done.wait(10)
    assert told == []
