"""Answers of a run: classes, evaluations, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import (
    DataError,
    UsageError,
)
from edgezo_runtime.evaluation.evaluate import evaluate
from tests.runtime.app_runs import CONFIG, LABELS, ROWS, opened

pytestmark = pytest.mark.usefixtures("unsynced")


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
