"""Rows for a model with a classification head."""

from __future__ import annotations

import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.sources import open_reader
from edgezo_runtime.errors import UsageError

ROWS = [{"text": f"w{10 + n} w{11 + n} w{12 + n}", "label": n % 3} for n in range(9)]
LABELS = (" bad", " fair", " good")


@pytest.mark.slow
def test_rows_are_scored_at_their_first_token(exported, tmp_path):
    bundle = exported("bert-classes").bundle("fp32").bundle
    assert bundle.manifest.model.task == "classification"
    examples = open_reader(bundle, "{text} w5", LABELS, None).take(ROWS)
    assert examples.label_tokens == ((0,), (1,), (2,))
    assert {tuple(example.places) for example in examples} == {(0,)}
    config = TuneConfig(steps=8, max_time_s=0, batch_size=9, first_order=2, first_order_lr=0.05)
    run = tmp_path / "run"
    with Tuner.open(bundle, ROWS, config, run, template="{text} w5", labels=LABELS) as tuner:
        before = tuner.evaluate(examples).loss
        list(tuner)
        assert tuner.evaluate(examples).loss < before - 0.1
        assert tuner.classify("w10 w11 w12").label in LABELS


@pytest.mark.slow
def test_labels_are_as_many_as_classes(exported):
    bundle = exported("bert-classes").bundle("fp32").bundle
    with pytest.raises(UsageError, match="`labels` are 2, the head of the model has 3 classes"):
        open_reader(bundle, "{text}", LABELS[:2], None).take(ROWS)
    with pytest.raises(UsageError, match="a classification bundle learns label words only"):
        open_reader(bundle, "{text}", (), None).take(ROWS)
