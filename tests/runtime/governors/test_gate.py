"""The gate: where steps wait, go on and end."""

from __future__ import annotations

import threading

import pytest

from edgezo_runtime.errors import InterruptedRunError, UsageError
from edgezo_runtime.governors.gate import Gate, PausedError


def test_a_hold_ends_a_pass_and_its_release_lets_steps_go_on() -> None:
    gate = Gate()
    gate.check()
    gate.hold("app", "the app paused the run")
    gate.hold("other", "another one")
    assert gate.held == gate.reason() == "the app paused the run"
    with pytest.raises(PausedError, match="the app paused the run"):
        gate.check()
    with pytest.raises(PausedError), gate.working():
        raise AssertionError("a step was taken")
    gate.release("app")
    assert gate.reason() == "another one"
    gate.release("other")
    gate.release("other")
    assert (gate.held, gate.reason(), gate.waiting) == (None, None, None)
    gate.check()


def test_the_first_governor_with_a_reason_is_told() -> None:
    gate = Gate()
    gate.governors = (lambda: None, lambda: "hot", lambda: "busy")
    assert gate.reason() == "hot"
    with pytest.raises(PausedError, match="hot"):
        gate.check()


def test_a_governor_that_says_neither_is_refused() -> None:
    gate = Gate()
    gate.governors = (lambda: True,)  # type: ignore[assignment, return-value]
    with pytest.raises(UsageError, match="returned True; expected None"):
        gate.check()


def test_a_wait_tells_each_reason_once_and_its_end() -> None:
    gate, told = Gate(), list[str | None]()
    reasons = iter(["hot", "hot", "busy", None])
    gate.governors = (lambda: next(reasons),)
    gate.wait(told.append, interrupted_by="on battery")
    assert told == ["on battery", "hot", "busy", None]
    assert gate.waiting is None
    told.clear()
    gate.governors = ()
    gate.wait(told.append)
    assert told == []


def test_a_stop_ends_steps_and_waits() -> None:
    gate, told = Gate(), list[str | None]()
    gate.hold("app", "paused")
    timer = threading.Timer(0.05, gate.stop)
    timer.start()
    with pytest.raises(InterruptedRunError, match="stopped in a step"):
        gate.wait(told.append)
    timer.join()
    assert told == ["paused", None]
    gate.release("app")
    with pytest.raises(InterruptedRunError):
        gate.check()


def test_a_release_ends_a_wait_at_once() -> None:
    gate = Gate()
    gate.hold("app", "paused")
    begun = threading.Event()
    thread = threading.Thread(target=gate.wait, args=(lambda reason: begun.set(),))
    thread.start()
    assert begun.wait(30)
    assert gate.waiting == "paused"
    gate.release("app")
    thread.join(30)
    assert not thread.is_alive()


def test_who_waits_for_idleness_waits_for_the_step() -> None:
    gate = Gate()
    assert gate.wait_until_idle(0)
    with gate.working():
        assert not gate.wait_until_idle(0.01)
    assert gate.wait_until_idle(0)
