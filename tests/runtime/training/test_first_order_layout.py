"""Which tensors take first-order steps, and how fast."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import UsageError
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.training.first_order_layout import (
    RELATIVE_STEP,
    FirstOrderLayout,
    first_order_rates,
    why_no_first_order,
)
from tests.runtime.tuner_runs import FIRST_ORDER, unstarted

pytestmark = pytest.mark.usefixtures("unsynced")


@pytest.mark.parametrize("blocks", [3, -1])
def test_a_tail_of_blocks_that_are_not_there_is_refused(bundle, examples, tmp_path, blocks):
    config = dataclasses.replace(FIRST_ORDER, first_order=blocks)
    with pytest.raises(UsageError, match=rf"first.order`? {blocks}: "):
        Tuner.open(bundle, examples, config, tmp_path)


def test_auto_takes_first_order_steps_where_it_can(bundle, examples, tmp_path):
    config = TuneConfig(steps=2, max_time_s=0, batch_size=2)
    with Tuner.open(bundle, examples, config, tmp_path / "auto") as tuner:
        assert tuner.run.rates.num_first_order == 2
    free = RunFolder(tmp_path / "free")
    assert (
        unstarted(Engine(bundle), examples, method_config("zo-sgd"), free).run.rates.num_first_order
        == 0
    )
    manifest = dataclasses.replace(bundle.manifest, backward="an operator has no gradient")
    lesser = dataclasses.replace(bundle, manifest=manifest)
    assert unstarted(Engine(lesser), examples, config, free).run.rates.num_first_order == 0
    with pytest.raises(UsageError, match="no backward graphs"):
        unstarted(Engine(lesser), examples, dataclasses.replace(config, first_order=1), free)


def test_rates_follow_the_size_of_what_they_change():
    values = {
        "zero": np.zeros((3, 2), np.float32),
        "small": np.array([0.3, -0.4], np.float32),
        "large": np.full(4, 100, np.float32),
    }
    found = first_order_rates(values, 0.5)
    assert found["zero"] == found["large"] == 0.5
    assert found["small"] == pytest.approx(RELATIVE_STEP * np.sqrt(0.125), rel=1e-6)


@pytest.mark.parametrize("modules", ["auto", "v_proj"])
def test_layers_that_first_order_steps_train(exported, examples, tmp_path, modules):
    bundle = exported("llama").bundle("fp32").bundle
    config = TuneConfig(steps=1, max_time_s=0, batch_size=2, modules=modules)
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        before = {name: value.copy() for name, value in tuner.run.state.theta.items()}
        tuner.step()
        changed = {n for n in before if not np.array_equal(tuner.run.state.theta[n], before[n])}
    able = {i.name for i in bundle.manifest.trainables if i.trains}
    expected = {name for name in able if modules == "auto" or "v_proj" in name}
    assert changed == expected
    assert expected


def test_blocks_that_the_tail_does_not_have_are_refused(bundle):
    config = dataclasses.replace(FIRST_ORDER, blocks="0")
    with pytest.raises(UsageError, match=r"blocks`? 0\b.* leaves nothing to train from block 1 on"):
        FirstOrderLayout(bundle.manifest, 1, config)


def test_a_gradient_too_long_for_the_journal(bundle, examples, monkeypatch, tmp_path):
    monkeypatch.setattr("edgezo_runtime.training.first_order_layout.MAX_BODY", 2**20 + 100)
    assert "whose records hold" in (why_no_first_order(bundle.manifest) or "")
    config = TuneConfig(steps=1, max_time_s=0, batch_size=2)
    assert (
        unstarted(Engine(bundle), examples, config, RunFolder(tmp_path)).run.rates.num_first_order
        == 0
    )
    with pytest.raises(UsageError, match=r"first.order`? 1: .* take fewer blocks"):
        FirstOrderLayout(bundle.manifest, 1)


def test_a_run_keeps_the_tail_it_began_with(bundle, examples, tmp_path):
    config = TuneConfig(steps=4, max_time_s=0, batch_size=2)
    tuner = unstarted(Engine(bundle), examples, config, RunFolder(tmp_path))
    assert tuner.run.trajectory.drop_first_order()
    assert not tuner.run.trajectory.drop_first_order()
    with tuner:
        tuner.start()
        tuner.step()
    with Tuner.open(bundle, examples, config, tmp_path, resume=True) as again:
        assert (again.run.rates.num_first_order, again.step_number) == (0, 1)


def test_a_resume_is_planned_for_what_it_resumes(bundle, examples, tmp_path):
    config = TuneConfig(steps=4, max_time_s=0, batch_size=2)
    tuner = unstarted(Engine(bundle), examples, config, RunFolder(tmp_path))
    tuner.run.trajectory.drop_first_order()
    with tuner:
        tuner.start()
    again = unstarted(Engine(bundle), examples, config, RunFolder(tmp_path))
    assert again.run.rates.num_first_order == 2
    again.run.log.recall()
    assert again.run.rates.num_first_order == 0
    kept = unstarted(Engine(bundle), examples, config, RunFolder(tmp_path / "other"))
    with kept:
        kept.start()
    other = unstarted(Engine(bundle), examples, config, RunFolder(tmp_path / "other"))
    other.run.log.recall()
    assert not other.run.trajectory.drop_first_order()  # too small a budget is refused instead
    assert other.run.rates.num_first_order == 2
