"""A run that is served: steps go on however many ask."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edgezo.cli.tune import serving
from edgezo_runtime.governors.gate import Gate, PausedError


class _Tuner:
    """Takes steps of some length, which a hold interrupts, as the loop does."""

    def __init__(self, seconds: float) -> None:
        self.gate, self.run = Gate(), self
        self.seconds, self.step_number, self.interrupted, self.done = seconds, 0, 0, False

    def paused(self, reason: str) -> contextlib.AbstractContextManager[None]:
        return self.gate.holding(reason)

    def work(self) -> None:
        while not self.done:
            self.gate.wait(lambda reason: None)
            try:
                with self.gate.working():
                    end = time.monotonic() + self.seconds
                    while time.monotonic() < end:
                        self.gate.check()
                        time.sleep(0.005)
                    self.step_number += 1
            except PausedError:
                self.interrupted += 1


@contextlib.contextmanager
def _running(tuner: _Tuner) -> Iterator[Any]:
    thread = threading.Thread(target=tuner.work)
    thread.start()
    try:
        yield tuner
    finally:
        tuner.done = True
        thread.join()


def test_a_step_is_finished_between_two_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that takes longer than answers wait for a step to begin."""
    monkeypatch.setattr(serving, "PATIENCE_S", 0.1)
    with _running(_Tuner(0.25)) as tuner:
        turns = serving.Turns(tuner)
        with turns.waiting(lambda: None):
            taken, interrupted = tuner.step_number, tuner.interrupted
        for number in (1, 2):
            with turns.waiting(lambda: None):
                assert tuner.step_number == taken + number
        assert tuner.interrupted <= interrupted + 2  # each the one behind that step, just begun


def test_an_answer_does_not_wait_for_steps_that_do_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "PATIENCE_S", 0.1)
    tuner: Any = _Tuner(1.0)  # nobody takes its steps: it evaluates
    turns = serving.Turns(tuner)
    began = time.monotonic()
    for _ in range(2):
        with turns.waiting(lambda: None):
            pass
    assert 0.1 <= time.monotonic() - began < 2


def test_a_client_that_leaves_does_not_wait_for_a_step() -> None:
    def gone() -> None:
        raise InterruptedError

    with _running(_Tuner(0.2)) as tuner:
        turns = serving.Turns(tuner)
        with turns.waiting(lambda: None):
            pass
        with pytest.raises(InterruptedError), turns.waiting(gone):
            pass
