"""The tuner: it steps, stops, learns and closes."""

from __future__ import annotations

import dataclasses
import sys
import threading
from pathlib import Path

import pytest

from edgezo_runtime.app.events import EndEvent, StepEvent
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.sessions import run_graph
from edgezo_runtime.errors import BudgetStopError, UsageError
from edgezo_runtime.journal.snapshot import load_snapshot
from edgezo_runtime.methods.catalogue import METHODS
from tests.runtime.growing_runs import slice_of
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import BASE

pytestmark = pytest.mark.usefixtures("unsynced")


def test_a_tuner_is_a_run_a_loop_and_their_events(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        told = []
        tuner.listen(told.append)
        report = tuner.loop.step()  # by itself it tells of pauses and snapshots alone
        assert (tuner.step_number, tuner.run.step_number, told) == (1, 1, [])
        assert tuner.step().step == report.step + 1
        assert [type(event) for event in told] == [StepEvent]
        assert tuner.status == tuner.run.status(begun=True)
        assert tuner.plan is None
        assert tuner.examples is tuner.run.examples
    assert tuner.closed
    assert tuner.run.closed


def test_cancel_ends_the_steps_and_saves_the_state(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        tuner.step()
        assert load_snapshot(tuner.run.folder.snapshot).step == 0
        tuner.cancel()
        assert load_snapshot(tuner.run.folder.snapshot).step == 1
        assert (tuner.status.phase, tuner.done) == ("stopped", True)
        assert list(tuner) == []
        assert tuner.evaluate(examples).rows == 8  # it still answers
    tuner.cancel()  # of a tuner that is closed, too


def test_waiting_for_examples_has_an_end(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    config = dataclasses.replace(BASE, steps=0, epochs=1.0, batch_size=4)
    with Tuner.open(bundle, examples.first(4), config, tmp_path) as tuner:
        assert tuner.wait_for_examples(0)
        list(tuner)
        assert not tuner.wait_for_examples(0.01)
        threading.Timer(0.05, tuner.add, [slice_of(examples, 4, 8)]).start()
        assert tuner.wait_for_examples(30)
        list(tuner)
        threading.Timer(0.05, tuner.stop).start()
        assert not tuner.wait_for_examples()


def test_memory_refused_between_two_passes_ends_the_step(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    """By a governor, for one. The next step is taken as if nothing had been."""
    errors = iter([MemoryError("refused")])

    def govern() -> None:
        for error in errors:
            raise error

    with Tuner.open(bundle, examples, BASE, tmp_path, governors=[govern]) as tuner:
        stream = tuner.events()
        message = "memory is short: refused between two passes"
        with pytest.raises(BudgetStopError, match=message):
            tuner.step()
        assert stream.get(0) == EndEvent(0, "running", message)
        assert [report.step for report in tuner] == list(range(6))


def test_stop_ends_the_iteration(bundle, examples, tmp_path):
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        for report in tuner:
            if report.step == 1:
                tuner.stop()
        assert tuner.done
        assert tuner.step_number == 2


def test_a_tuner_says_why_it_ended(bundle: Bundle, examples: ExampleSet, tmp_path: Path) -> None:
    """A run that its time ended looked like one that had taken all its steps."""
    with Tuner.open(bundle, examples, BASE, tmp_path / "steps") as tuner:
        stream = tuner.events()
        assert tuner.ended_by is tuner.status.ended_by is None
        list(tuner)
        assert tuner.ended_by == tuner.status.ended_by == "steps"
        (end,) = [event for event in iter(lambda: stream.get(0), None) if type(event) is EndEvent]
        assert end == EndEvent(6, "done", "", "steps")
        tuner.stop()
        assert tuner.ended_by == "steps"
    timed = dataclasses.replace(BASE, max_time_s=1e-3)
    with Tuner.open(bundle, examples, timed, tmp_path / "time") as tuner:
        list(tuner)
        status = tuner.status
        assert (tuner.ended_by, status.ended_by, status.phase) == ("time", "time", "done")
        assert (status.step, status.steps_planned) == (1, 6)
    with Tuner.open(bundle, examples, BASE, tmp_path / "time") as tuner:  # more time: it goes on
        tuner.step()
        assert tuner.ended_by is None
        tuner.stop()
        list(tuner)
        assert (tuner.ended_by, tuner.status.ended_by, tuner.status.phase) == (
            "stop", "stop", "stopped",
        )  # fmt: skip


def test_passes_over_the_data_end_a_run_until_examples_come(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    config = dataclasses.replace(BASE, steps=0, epochs=1.0, batch_size=4)
    with Tuner.open(bundle, examples.first(4), config, tmp_path) as tuner:
        list(tuner)
        assert (tuner.ended_by, tuner.status.steps_planned) == ("steps", 1)
        tuner.add(slice_of(examples, 4, 8))
        assert (tuner.ended_by, tuner.status.ended_by) == (None, None)
        assert tuner.status.steps_planned == 2


def test_a_closed_tuner_refuses(bundle, examples, tmp_path):
    tuner = Tuner.open(bundle, examples, BASE, tmp_path)
    tuner.step()
    tuner.close()
    tuner.close()
    for call in (tuner.step, tuner.snapshot):
        with pytest.raises(UsageError, match="the tuner is closed"):
            call()
    assert tuner.adapter().keys() == tuner.run.state.theta.keys()
    assert not (tmp_path / "prefix.cache").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name, made in METHODS.items() if made.any_rule])
def test_the_loss_falls_on_a_toy_task(bundle, tmp_path, method):
    """The last token of the prompt says the class."""
    examples = random_set("labels", [4] * 12, bundle.manifest.tokenizer.pad_id)
    for example in examples:
        example.tokens[-1] = 20 + example.label
    config = dataclasses.replace(
        BASE, method=method, steps=40, batch_size=12, lr=0.1, average=0.0, lr_schedule="linear"
    )
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        before = tuner.evaluate(examples)
        for _ in tuner:
            pass
        after = tuner.evaluate(examples)
    assert after.loss < 0.7 * before.loss
    assert after.accuracy >= before.accuracy


def test_a_step_reaches_the_session_within_twelve_frames(bundle, examples, tmp_path, monkeypatch):
    """On the thread that steps: one frame of each part that a reader has to know."""
    depths: list[int] = []

    def counting(session, outputs, feed):
        frame, depth = sys._getframe(), 1  # this function stands for `run_graph`
        while frame is not None and frame.f_code is not Tuner.step.__code__:
            frame, depth = frame.f_back, depth + 1
        assert frame is not None
        depths.append(depth)
        return run_graph(session, outputs, feed)

    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        tuner.step()  # reads the prompts, where they are cached
        tuner.run.engine.limits = dataclasses.replace(tuner.run.engine.limits, workers=1)
        monkeypatch.setattr("edgezo_runtime.engine.forward.run_graph", counting)
        tuner.step()
    assert depths
    assert max(depths) + 1 <= 12  # and the session's own `run`
