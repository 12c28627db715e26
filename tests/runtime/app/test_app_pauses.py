"""Steps that an app or a governor pauses, and what closing ends."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.app.events import EndEvent, PauseEvent, ResumeEvent, StepEvent
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.governors.foreground import Foreground
from edgezo_runtime.journal.journal import Journal
from edgezo_runtime.methods.catalogue import method_config
from tests.runtime.app_runs import LABELS, opened, until

pytestmark = pytest.mark.usefixtures("unsynced")


def test_a_pause_that_waits_finds_nobody_working(bundle: Bundle, tmp_path: Path) -> None:
    config = method_config("zo-sgd", lr=0.01, eps=0.01, steps=10**6, max_time_s=0, batch_size=4)
    with opened(bundle, tmp_path, config) as tuner:
        stream = tuner.events()
        background = tuner.run_in_background()
        until(lambda: tuner.step_number > 2)
        for _ in range(20):
            tuner.pause("lunch", wait=True)
            steps = tuner.step_number
            time.sleep(0.002)
            assert tuner.step_number == steps
            assert (tuner.status.phase, tuner.status.reason) == ("paused", "lunch")
            with tuner.paused("dinner"):
                tuner.resume()
                assert tuner.status.reason == "dinner"
                tuner.classify("w1 w2")
                assert tuner.step_number == steps
            until(lambda steps=steps: tuner.step_number > steps)  # type: ignore[misc]
        tuner.cancel()
        assert background.join(10)
        assert tuner.status.phase == "stopped"
        assert tuner.classify("w1 w2").label in LABELS
        steps = tuner.step_number
    found = list(stream)
    reasons = {event.reason for event in found if isinstance(event, PauseEvent)}
    assert "lunch" in reasons
    assert any(isinstance(event, ResumeEvent) for event in found)
    assert EndEvent(steps, "stopped", "", "stop") in found[-2:]  # a checkpoint may follow
    with opened(bundle, tmp_path, config) as tuner:
        assert tuner.step_number == steps


def test_a_governor_pauses_and_says_why(bundle: Bundle, tmp_path: Path) -> None:
    with opened(bundle, tmp_path / "alone") as tuner:
        expected = [report.loss for report in tuner]
    reason: str | None = "the cat sleeps"
    foreground = Foreground()
    with opened(bundle, tmp_path / "governed", governors=[lambda: reason, foreground]) as tuner:
        stream = tuner.events()
        assert tuner.status.phase == "ready"
        background = tuner.run_in_background()
        until(lambda: tuner.status.phase == "paused")
        assert tuner.status.reason == "the cat sleeps"
        assert tuner.step_number == 0
        foreground.enter()
        reason = None
        until(lambda: tuner.status.reason == "the app is in the foreground")
        foreground.leave()
        assert background.join(30)
    found = list(stream)
    assert found[:3] == [
        PauseEvent(0, "the cat sleeps"),
        PauseEvent(0, "the app is in the foreground"),
        ResumeEvent(0),
    ]
    assert [e.report.loss for e in found if isinstance(e, StepEvent)] == expected


def test_a_step_that_a_governor_gives_up_is_done_again(bundle: Bundle, tmp_path: Path) -> None:
    """At whatever block, with the same bits."""
    with opened(bundle, tmp_path / "alone") as tuner:
        expected = [report.loss for report in tuner]
    for after in (2, 3, 5, 9):
        looks = iter(range(1, 10**6))
        governor = lambda after=after, looks=looks: "now" if next(looks) == after else None  # noqa: E731
        with opened(bundle, tmp_path / str(after), governors=[governor]) as tuner:
            stream = tuner.events()
            assert [report.loss for report in tuner] == expected
        assert PauseEvent(0, "now") in list(stream)


@pytest.mark.parametrize("said", [True, 0, b"no"])
def test_a_governor_that_says_nonsense_ends_the_step(
    bundle: Bundle, tmp_path: Path, said: Any
) -> None:
    with opened(bundle, tmp_path, governors=[lambda: said]) as tuner:
        with pytest.raises(UsageError, match="expected None to continue, or a string"):
            tuner.step()
        assert tuner.step_number == 0


def test_what_a_governor_raises_comes_out_of_the_step(bundle: Bundle, tmp_path: Path) -> None:
    calls = 0

    def fail() -> str | None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ZeroDivisionError
        return None

    with opened(bundle, tmp_path / "alone") as tuner:
        expected = [report.loss for report in tuner]
    with opened(bundle, tmp_path / "failing", governors=[fail]) as tuner:
        with tuner.events() as stream:
            with pytest.raises(ZeroDivisionError):
                tuner.step()
            assert stream.get(0) == EndEvent(0, "running", "ZeroDivisionError")
        assert [report.loss for report in tuner] == expected


def test_closing_ends_what_waits(bundle: Bundle, tmp_path: Path) -> None:
    tuner = opened(bundle, tmp_path, governors=[lambda: "never"])
    background = tuner.run_in_background(keep_going=True)
    told = threading.Event()
    stream = tuner.events()
    threading.Thread(target=lambda: (list(stream), told.set())).start()
    until(lambda: tuner.status.phase == "paused")
    tuner.close()
    assert background.join(10)
    assert told.wait(10)
    assert tuner.wait_for_examples() is False
    tuner.close()


def test_closing_ends_streams_even_where_the_disk_fails(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = opened(bundle, tmp_path)
    stream = tuner.events()
    tuner.step()

    close = Journal.close

    def fail(self: Journal) -> None:
        close(self)
        raise RunFileError("no space")

    monkeypatch.setattr(Journal, "close", fail)
    with pytest.raises(RunFileError, match="no space"):
        tuner.close()
    assert isinstance(stream.get(10), StepEvent)
    assert stream.get(10) is None
    assert stream.closed
