"""The tuner: it steps, stops, learns and closes."""

from __future__ import annotations

import dataclasses

import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.errors import (
    UsageError,
)
from edgezo_runtime.methods.catalogue import METHODS
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import (
    BASE,
)

pytestmark = pytest.mark.usefixtures("unsynced")


def test_stop_ends_the_iteration(bundle, examples, tmp_path):
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        for report in tuner:
            if report.step == 1:
                tuner.stop()
        assert tuner.done
        assert tuner.step_number == 2


def test_a_closed_tuner_refuses(bundle, examples, tmp_path):
    tuner = Tuner.open(bundle, examples, BASE, tmp_path)
    tuner.step()
    tuner.close()
    tuner.close()
    for call in (tuner.step, tuner.snapshot):
        with pytest.raises(UsageError, match="the tuner is closed"):
            call()
    assert tuner.adapter().keys() == tuner.run.theta.keys()
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
