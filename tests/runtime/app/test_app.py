"""A tuner as apps use it: opened with rows, asked between steps, paused, told of."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo import (
    CheckpointEvent,
    EndEvent,
    EvaluationEvent,
    Event,
    ExamplesEvent,
    Foreground,
    PauseEvent,
    PressureEvent,
    ResumeEvent,
    StepEvent,
    TuneConfig,
    Tuner,
)
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import DataError, DivergedError, RunFileError, UsageError
from edgezo_runtime.evaluation.evaluate import evaluate
from edgezo_runtime.journal.journal import Journal
from edgezo_runtime.methods.catalogue import method_config

pytestmark = pytest.mark.usefixtures("unsynced")

LABELS = [" w10", " w11"]
TEMPLATE = "{text} w4"
ROWS = [{"text": f"w{20 + 3 * n} w{40 + n}", "label": n % 2} for n in range(8)]
CONFIG = method_config("zo-sgd", lr=0.01, eps=0.01, steps=6, max_time_s=0, batch_size=4)


def opened(bundle: Bundle, folder: Path, config: TuneConfig = CONFIG, **options: Any) -> Tuner:
    """A tuner of rows in memory."""
    settings = {"template": TEMPLATE, "labels": LABELS, **options}
    return Tuner.open(bundle, ROWS, config, folder, **settings)


def until(found: Callable[[], object], seconds: float = 30) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_rows_in_memory_are_those_of_a_file(bundle: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    reader = RowReader(
        TextTokenizer.open(bundle.root, bundle.manifest.tokenizer), TEMPLATE, tuple(LABELS), 64
    )
    read = load_examples(file, reader.tokenizer, template=TEMPLATE, labels=LABELS, max_seq=64)
    taken = reader.take(ROWS)
    assert taken.tokens_sha256() == read.tokens_sha256()
    assert (taken.kind, taken.report) == (read.kind, read.report)
    with opened(bundle, tmp_path / "a") as one:
        first = [report.loss for report in one]
    with Tuner.open(
        bundle, file, CONFIG, tmp_path / "b", template=TEMPLATE, labels=LABELS
    ) as other:
        assert [report.loss for report in other] == first


def test_a_run_of_rows_is_opened_again_with_the_same(bundle: Bundle, tmp_path: Path) -> None:
    with opened(bundle, tmp_path) as tuner:
        tuner.step()
        assert tuner.add([{"text": "w7 w8", "label": " w11"}]) == 9
    with opened(bundle, tmp_path) as tuner:
        assert (tuner.step_number, len(tuner.examples)) == (1, 9)
        assert tuner.examples.examples[8].label == 1
    with pytest.raises(Exception, match="other inputs"):
        Tuner.open(bundle, ROWS[1:], CONFIG, tmp_path, template=TEMPLATE, labels=LABELS)


def test_what_is_no_row_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    for rows, message in (
        ([], "no rows"),
        ([*ROWS, {"text": "w1"}], "row 9: no field 'label'"),
        (["w1"], "row 1: found a string, expected a dict"),
        ([{"text": "w1", "label": 0, "more": {1}}], "row 1: not JSON"),
    ):
        with pytest.raises(DataError, match=message):
            Tuner.open(bundle, rows, CONFIG, tmp_path, template=TEMPLATE, labels=LABELS)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected a list of words"):
        Tuner.open(bundle, ROWS, CONFIG, tmp_path, template=TEMPLATE, labels=" w10")
    with opened(bundle, tmp_path) as tuner:
        with pytest.raises(DataError, match="row 1: no field 'text'"):
            tuner.add([{"label": 0}])
        with pytest.raises(DataError, match="label 'w12' is none of 'w10', 'w11'"):
            tuner.add([{"text": "w1", "label": "w12"}])


def test_of_a_folder_the_training_rows_are_added(bundle: Bundle, tmp_path: Path) -> None:
    rows = {"train": [{"text": "w7", "label": 1}], "valid": [{"text": "w8", "label": 0}] * 3}
    for name, own in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    with opened(bundle, tmp_path / "run") as tuner:
        assert tuner.add(tmp_path) == len(ROWS) + 1
        assert tuner.examples.examples[-1].label == 1
        assert tuner.evaluate(tmp_path).rows == 3


def test_classes_are_those_of_an_evaluation(bundle: Bundle, tmp_path: Path) -> None:
    with opened(bundle, tmp_path) as tuner:
        for _ in tuner:
            pass
        texts = [str(row["text"]) for row in ROWS]
        found = tuner.classify_all([*texts[:4], *({"text": text} for text in texts[4:])])
        reference = evaluate(Engine(bundle), tuner.adapter(), tuner.examples, scope=tuner.run.scope)
        assert [prediction.index for prediction in found] == reference.predictions.tolist()
        assert [prediction.label for prediction in found] == [LABELS[p.index] for p in found]
        for prediction in found:
            assert sum(prediction.probabilities) == pytest.approx(1)
        losses = [
            -np.log(p.probabilities[int(row["label"])]) for p, row in zip(found, ROWS, strict=True)
        ]
        assert np.mean(losses) == pytest.approx(reference.loss)
        assert tuner.classify(texts[3]).index == found[3].index
        assert tuner.classify_all([]) == []
        assert tuner.evaluate(ROWS).loss == reference.loss
        with pytest.raises(DataError, match="no field 'text'"):
            tuner.classify({"txt": "w1"})


def test_rows_without_words_have_no_class(bundle: Bundle, tmp_path: Path) -> None:
    rows = [{"prompt": "w1 w2", "completion": " w3 w4"}] * 4
    with Tuner.open(bundle, rows, CONFIG, tmp_path) as tuner:
        tuner.step()
        assert tuner.add([{"prompt": "w5", "completion": " w6"}]) == 5
        assert tuner.evaluate(rows).accuracy is None
        with pytest.raises(UsageError, match="fills one field"):
            tuner.classify("w1")
        with pytest.raises(UsageError, match="without label words"):
            tuner.classify({"prompt": "w1", "completion": "w2"})


def test_a_budget_is_planned_for_rows_to_come(bundle: Bundle, tmp_path: Path) -> None:
    with opened(bundle, tmp_path / "a", budget="4GB", max_seq=40) as tuner:
        assert tuner.run.engine.guard is not None
        assert tuner.run.engine.guard.budget_bytes == 4 * 10**9
        long = " ".join(["w9"] * 60)
        tuner.add([{"text": long, "label": 0}])
        assert tuner.examples.examples[-1].tokens.size == 40  # cut, as the run's own rows are
        tuner.step()
        tuner.classify(long)
    examples = tuner.examples
    other = Tuner.open(bundle, examples.first(8), CONFIG, tmp_path / "b", budget="4GB")
    with other, pytest.raises(DataError, match="a row of 40 tokens; the run is planned for"):
        other.add(examples)
    with pytest.raises(UsageError, match="unknown unit"):
        opened(bundle, tmp_path / "c", budget="4G")


# --- events ---


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


# --- pauses ---


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
    assert EndEvent(steps, "stopped") in found[-2:]  # a checkpoint may follow
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
        with pytest.raises(UsageError, match="expected None, or a string"):
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
