"""The thread that steps: its end, its error, its process."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.app.events import (
    EndEvent,
)
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import (
    DivergedError,
    InterruptedRunError,
)
from tests.runtime.app_runs import CONFIG, opened
from tests.runtime.stepping_process import What, run_process

pytestmark = pytest.mark.usefixtures("unsynced")


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
    assert "the steps have ended: of a governor" in caplog.text


@pytest.mark.parametrize(("what", "threads"), [("background", 1), ("background", 2), ("own", 1)])
def test_a_process_ends_while_a_thread_steps(
    bundle: Bundle, tmp_path: Path, what: What, threads: int
) -> None:
    """Coming out of onnxruntime when the interpreter has ended would abort it."""
    run_process(bundle, tmp_path, what, threads)
