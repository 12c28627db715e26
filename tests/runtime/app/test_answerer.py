"""Answers of a run: classes, evaluations, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.app.answerer import Answerer
from edgezo_runtime.app.best_keeper import BestKeeper
from edgezo_runtime.app.events import EvaluationEvent, Event, PressureEvent
from edgezo_runtime.app.open_run import open_run
from edgezo_runtime.app.run_data import RunData
from edgezo_runtime.app.run_events import RunEvents
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import DataError, UsageError
from edgezo_runtime.evaluation.evaluate import evaluate
from edgezo_runtime.generation.generator import GenerationConfig
from edgezo_runtime.journal.run_folder import RunFolder
from tests.runtime.app_runs import CONFIG, LABELS, ROWS, TEMPLATE, opened

pytestmark = pytest.mark.usefixtures("unsynced")


def answering(
    bundle: Bundle, data: Any, folder: Path, **options: Any
) -> tuple[Answerer, RunEvents]:
    """The answers of a run that was opened, and takes no steps."""
    opened_run = open_run(bundle, RunData(data, **options), CONFIG, RunFolder(folder))
    events = RunEvents(opened_run.run)
    keeper = BestKeeper(opened_run.run, None)
    return Answerer(opened_run.run, events, opened_run.reader, keeper), events


@pytest.fixture
def rows(bundle: Bundle, tmp_path: Path) -> tuple[Answerer, RunEvents]:
    return answering(bundle, ROWS, tmp_path, template=TEMPLATE, labels=LABELS)


def test_an_evaluation_is_told_with_what_was_done_for_memory(
    rows: tuple[Answerer, RunEvents],
) -> None:
    answerer, events = rows
    told: list[Event] = []
    events.hub.listen(told.append)
    answerer._run.engine.reliefs.append("smaller chunks")
    found = answerer.evaluate(ROWS, 3)
    assert told == [EvaluationEvent(0, "rows", found), PressureEvent(0, "smaller chunks")]
    assert answerer.evaluate(ROWS, 8).loss == pytest.approx(found.loss, rel=1e-6)
    assert len(told) == 3  # nothing new was done


def test_an_adapter_is_a_copy(rows: tuple[Answerer, RunEvents]) -> None:
    answerer, _ = rows
    for value in answerer.adapter().values():
        value[:] = np.nan
    assert all(np.isfinite(value).all() for value in answerer.adapter().values())


def test_a_text_comes_in_the_deltas_of_a_stream(rows: tuple[Answerer, RunEvents]) -> None:
    answerer, events = rows
    told: list[Event] = []
    events.hub.listen(told.append)
    stream = answerer.stream("w20 w40", GenerationConfig(6))
    assert isinstance(stream, Iterator)
    before = answerer.adapter()
    text = next(stream)
    for value in answerer._run.state.theta.values():  # the adapter stays the one of the beginning
        value += 1
    text += "".join(stream)
    for name, value in answerer._run.state.theta.items():
        value[:] = before[name]
    assert text == "".join(answerer.stream("w20 w40", GenerationConfig(6)))
    assert told == []
    with pytest.raises(UsageError, match="max_new_tokens"):
        next(answerer.stream("w20", GenerationConfig(10**6)))


def test_a_run_of_tokens_has_no_reader(
    bundle: Bundle, examples: ExampleSet, tmp_path: Path
) -> None:
    answerer, _ = answering(bundle, examples, tmp_path)
    assert answerer.read(examples, "train") is examples
    assert answerer.evaluate(examples, 4).rows == 8
    assert "".join(answerer.stream("w20 w40", GenerationConfig(2)))
    for ask in (
        answerer.require_reader,
        lambda: answerer.classify(["w1"], 4),
        lambda: answerer.evaluate(ROWS, 4),
        lambda: answerer.read(ROWS, "valid"),
    ):
        with pytest.raises(UsageError, match="open it with rows, `template` and `labels`"):
            ask()


def test_a_loss_scores_no_answers(rows: tuple[Answerer, RunEvents]) -> None:
    answerer, _ = rows
    with pytest.raises(
        UsageError, match="`objective` loss: no answers are generated; use evaluate"
    ):
        answerer.score(ROWS)
    assert answerer.classify([], 4) == []


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
