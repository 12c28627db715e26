"""The events of a run, and their order."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edgezo_runtime.app.events import (
    CheckpointEvent,
    EndEvent,
    EvaluationEvent,
    Event,
    ExamplesEvent,
    PressureEvent,
    StepEvent,
)
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.methods.catalogue import method_config
from tests.runtime.app_runs import ROWS, opened

pytestmark = pytest.mark.usefixtures("unsynced")


def test_an_app_is_told_what_happens(bundle: Bundle, tmp_path: Path) -> None:
    config = method_config(
        "zo-sgd", lr=0.01, eps=0.01, steps=4, max_time_s=0, batch_size=4, save_every=2
    )
    told: list[Event] = []
    with opened(bundle, tmp_path, config) as tuner:
        tuner.subscribe(told.append)
        stream = tuner.events()
        tuner.step()
        tuner.run.engine.reliefs.append("short: cut smaller")
        tuner.evaluate(ROWS)
        tuner.add(ROWS[:1])
        reports = list(tuner)
    assert told == list(stream)
    kinds = [type(event).__name__.removesuffix("Event") for event in told]
    assert kinds == [
        "Step", "Evaluation", "Pressure", "Examples", "Checkpoint", "Step", "Step", "Checkpoint",
        "Step", "End",
    ]  # fmt: skip
    assert [event.step for event in told] == [1, 1, 1, 1, 2, 2, 3, 4, 4, 4]
    assert [event.report for event in told if isinstance(event, StepEvent)][1:] == reports
    evaluated = next(event for event in told if isinstance(event, EvaluationEvent))
    assert (evaluated.data, evaluated.evaluation.rows) == ("rows", 8)
    assert PressureEvent(1, "short: cut smaller") in told
    assert ExamplesEvent(1, 1, 9) in told
    assert CheckpointEvent(2, tmp_path / "snapshot.safetensors") in told
    assert told[-1] == EndEvent(4, "done")


def test_a_subscriber_that_fails_changes_nothing(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(bundle, tmp_path / "alone") as tuner:
        expected = [report.loss for report in tuner]

    def fail(event: Event) -> None:
        raise RuntimeError("mine")

    with opened(bundle, tmp_path / "told") as tuner, caplog.at_level(logging.ERROR):
        tuner.subscribe(fail)
        assert [report.loss for report in tuner] == expected
    assert "mine" in caplog.text
