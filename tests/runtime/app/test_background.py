"""The thread that steps: its end, its error, its process."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.app.background import Background
from edgezo_runtime.app.events import EndEvent
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import DivergedError, InterruptedRunError
from tests.runtime.app_runs import CONFIG, opened
from tests.runtime.stepping_process import What, run_process

pytestmark = pytest.mark.usefixtures("unsynced")


class Steps:
    """Takes steps without a run.

    Args:
        rounds: steps until the run is over; again as many after each wait for examples.
        error: what ends the last of them.
    """

    def __init__(self, rounds: Sequence[int], error: BaseException | None = None) -> None:
        self._rounds = iter(rounds)
        self._left = len(rounds) - 1
        self._error = error
        self.taken = 0
        self.threads: set[str] = set()

    def __iter__(self) -> Iterator[Any]:
        for _ in range(next(self._rounds)):
            self.taken += 1
            self.threads.add(threading.current_thread().name)
            yield None
        if self._error is not None:
            raise self._error

    def wait_for_examples(self) -> bool:
        self._left -= 1
        return self._left >= 0


@pytest.mark.parametrize(("keep_going", "taken"), [(False, 3), (True, 3 + 2 + 4)])
def test_the_steps_are_taken_by_a_thread_of_its_own(keep_going: bool, taken: int) -> None:
    steps = Steps((3, 2, 4))
    background = Background(steps, keep_going=keep_going)
    assert background.join(10)
    assert steps.taken == taken
    assert steps.threads == {"edgezo-steps"}
    assert not background.running


def test_joining_has_an_end() -> None:
    let_go = threading.Event()

    class Waiting(Steps):
        def __iter__(self) -> Iterator[Any]:
            let_go.wait(30)
            return iter(())

    background = Background(Waiting((1,)), keep_going=False)
    assert not background.join(0.01)
    assert background.running
    let_go.set()
    assert background.join(10)
    background.leave()


def test_what_ended_the_steps_comes_out_of_every_join(caplog: pytest.LogCaptureFixture) -> None:
    background = Background(Steps((2,), KeyboardInterrupt()), keep_going=True)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            background.join(10)
    background.leave()  # raises nothing
    assert "an error ended the steps: KeyboardInterrupt" in caplog.text


def test_the_thread_itself_does_not_wait_for_its_end() -> None:
    made = threading.Event()
    left = threading.Event()

    class Leaving(Steps):
        def __iter__(self) -> Iterator[Any]:
            made.wait(30)
            background.leave()
            left.set()
            return iter(())

    background = Background(Leaving((1,)), keep_going=False)
    made.set()
    assert background.join(10)
    assert left.is_set()


def test_an_error_is_the_last_event_and_comes_out_of_join(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(bundle, tmp_path) as tuner:
        stream = tuner.events()

        def fail(info: object, check: object) -> None:
            raise DivergedError("no number")

        monkeypatch.setattr(tuner.run.evaluator, "evaluate", fail)
        monkeypatch.setattr(
            "edgezo_runtime.training.loop.CacheRangeError", DivergedError
        )  # the guard does not take it back
        background = tuner.run_in_background()
        with pytest.raises(DivergedError, match="no number"):
            background.join(30)
    assert list(stream) == [EndEvent(0, "running", "no number")]


def test_closing_lets_the_background_tell_its_end(
    bundle: Bundle, tmp_path: Path, monkeypatch: Any
) -> None:
    """However late its thread gets to it."""
    tuner = opened(bundle, tmp_path, dataclasses.replace(CONFIG, steps=10**6))
    step = tuner.step

    def slow_end() -> Any:
        try:
            return step()
        except InterruptedRunError:
            time.sleep(0.3)
            raise

    monkeypatch.setattr(tuner, "step", slow_end)
    stream = tuner.events()
    background = tuner.run_in_background()
    while tuner.step_number < 2:
        time.sleep(0.001)
    tuner.close()
    assert not background.running
    assert isinstance(list(stream)[-1], EndEvent)


def test_an_error_of_the_background_is_logged(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An app may never join it."""

    def fail() -> str | None:
        raise ZeroDivisionError("of a governor")

    with opened(bundle, tmp_path, governors=[fail]) as tuner:
        background = tuner.run_in_background()
        while background.running:
            time.sleep(0.001)
    assert "an error ended the steps: of a governor" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(("what", "threads"), [("background", 1), ("background", 2), ("own", 1)])
def test_a_process_ends_while_a_thread_steps(
    bundle: Bundle, tmp_path: Path, what: What, threads: int
) -> None:
    """Coming out of onnxruntime when the interpreter has ended would abort it."""
    run_process(bundle, tmp_path, what, threads)
