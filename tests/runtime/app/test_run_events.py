"""The events of a run, and their order."""

from __future__ import annotations

import dataclasses
import logging
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgezo_runtime.app.events import (
    CheckpointEvent,
    DivergenceEvent,
    EndEvent,
    EvaluationEvent,
    Event,
    ExamplesEvent,
    PauseEvent,
    PressureEvent,
    ResumeEvent,
    StepEvent,
)
from edgezo_runtime.app.run_events import RunEvents
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import BudgetStopError, InterruptedRunError
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.training.step_report import StepReport
from tests.runtime.app_runs import CONFIG, ROWS, opened
from tests.runtime.tuner_runs import bits

pytestmark = pytest.mark.usefixtures("unsynced")


class FakeRun:
    """Where a run stands, and nothing behind it.

    Attributes:
        calls: what it was asked to do.
    """

    def __init__(self) -> None:
        self.step_number = 4
        self.lock = threading.RLock()
        self.engine = SimpleNamespace(reliefs=["before"])
        self.folder = SimpleNamespace(snapshot=Path("run/snapshot.safetensors"))
        self.calls: list[str] = []

    def sync(self) -> None:
        self.calls.append("sync")

    def status(self, *, begun: bool) -> SimpleNamespace:
        return SimpleNamespace(phase="running" if begun else "ready", ended_by=None)


@pytest.fixture
def fake() -> tuple[RunEvents, FakeRun, list[Event]]:
    """The events of a fake run, the run, and what a listener is told."""
    run: Any = FakeRun()
    events, told = RunEvents(run), list[Event]()
    events.hub.listen(told.append)
    return events, run, told


Fake = tuple[RunEvents, FakeRun, list[Event]]
REPORT = StepReport(3, 0.5, 2.0, 0.01, (0, 1), 8, 40, 0.25, ("rolled back", "no progress"))


def test_a_step_is_told_before_what_was_noticed_in_it(fake: Fake) -> None:
    events, run, told = fake
    events.tell_step(REPORT)
    assert told == [
        StepEvent(4, REPORT),
        DivergenceEvent(4, "rolled back"),
        DivergenceEvent(4, "no progress"),
        PressureEvent(4, "before"),
    ]
    told.clear()
    run.engine.reliefs += ["one", "two"]
    for _ in range(2):  # nothing is told twice
        events.tell_reliefs()
    assert told == [PressureEvent(4, "one"), PressureEvent(4, "two")]


def test_steps_are_on_the_disk_before_a_pause_is_told(fake: Fake) -> None:
    events, run, told = fake
    events.hub.listen(lambda event: run.calls.append(type(event).__name__))
    events.on_pause("lunch")
    events.on_pause(None)
    events.on_snapshot()
    assert run.calls == ["sync", "PauseEvent", "ResumeEvent", "CheckpointEvent"]
    snapshot = Path("run/snapshot.safetensors")
    assert told == [PauseEvent(4, "lunch"), ResumeEvent(4), CheckpointEvent(4, snapshot)]


@pytest.mark.parametrize(
    ("error", "text"),
    [(None, ""), (BudgetStopError("short"), "short"), (ZeroDivisionError(), "ZeroDivisionError")],
)
def test_an_end_says_what_ended_the_steps(fake: Fake, error: Exception | None, text: str) -> None:
    events, _, told = fake
    events.tell_end(error)
    events.begun = True
    events.tell_end(error)
    assert told == [EndEvent(4, "ready", text), EndEvent(4, "running", text)]


def test_an_interrupt_is_told_by_whoever_iterates(fake: Fake) -> None:
    events, _, told = fake
    events.tell_end(InterruptedRunError("stopped"))
    assert told == []


@pytest.mark.parametrize(("kind", "steps"), [(StepEvent, 1), (CheckpointEvent, 2), (PauseEvent, 0)])
def test_what_a_listener_raises_ends_the_step_and_loses_nothing(
    bundle: Bundle, tmp_path: Path, kind: type, steps: int
) -> None:
    """A step that was told is in journal and state, and the run ends with the same bits."""
    config = dataclasses.replace(CONFIG, save_every=2)
    with opened(bundle, tmp_path / "alone", config) as alone:
        list(alone)
        expected = bits(alone)
    looks = iter(range(10**6))

    def govern() -> str | None:
        return "now" if next(looks) == 2 else None

    failures = iter([True])

    def fail(event: Event) -> None:
        if isinstance(event, kind) and next(failures, False):
            raise LookupError("of the app")

    with opened(bundle, tmp_path / "told", config, governors=[govern]) as tuner:
        tuner.listen(fail)
        with pytest.raises(LookupError, match="of the app"):
            list(tuner)
        assert tuner.step_number == steps
        tuner.run.sync()
        recorded = read_journal(tmp_path / "told" / "journal.bin").records
        assert sum(1 for _ in recorded) == steps
        list(tuner)
        assert bits(tuner) == expected


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
    assert told[-1] == EndEvent(4, "done", "", "steps")


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
