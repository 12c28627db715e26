"""Runs whose last blocks take first-order steps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.errors import DivergedError, RunFileError, UsageError
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.methods.rules.adam import Adam
from edgezo_runtime.training.first_order_layout import (
    RELATIVE_STEP,
    FirstOrderLayout,
    first_order_rates,
    why_no_first_order,
)
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import unstarted

SIZES = (4, 7, 5, 3, 6, 4, 8, 5)
BASE = TuneConfig(
    steps=6,
    max_time_s=0,
    batch_size=2,
    lr=0.03,
    eps=0.01,
    blocks="all",
    save_every=1000,
    first_order=1,
    first_order_lr=0.01,
)


@pytest.fixture
def examples(bundle):
    return random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)


def bits(tuner: Tuner) -> dict[str, bytes]:
    """All that a run goes on from."""
    found = {name: value.tobytes() for name, value in tuner.run.theta.items()}
    for name, slot in tuner.run.state.slots.items():
        found |= {f"{name} {key}": value.tobytes() for key, value in (slot or {}).items()}
    return found


@pytest.mark.parametrize("scope", ["all", "answer"])
def test_a_step_is_both_halves_at_the_same_parameters(bundle, examples, tmp_path, scope):
    config = dataclasses.replace(BASE, scope=scope)
    alone = dataclasses.replace(config, first_order=0, first_order_lr="auto", blocks="0")
    with Tuner.open(bundle, examples, config, tmp_path / "first_order") as tuner:
        batch = tuner.run.probes.batches.batch(0)
        cache = tuner.run.probes.cache
        layout = tuner.run.trajectory.layout.first_order
        exact = FirstOrderGradient(tuner.run.engine, 1).gradient(
            batch, tuner.run.theta, scope, cache, 0
        )
        expected = layout.unpack(layout.pack(exact.gradients))
        tail = {name: tuner.run.theta[name].copy() for name in expected}
        report = tuner.step()
    with Tuner.open(bundle, examples, alone, tmp_path / "alone") as other:
        assert other.step().loss == report.loss
    rule = Adam()
    lr = float(np.float32(report.lr * (config.first_order_lr / config.lr)))
    for name, theta in tail.items():
        rule.apply(theta, expected[name], rule.init(theta), 0, lr)
        np.testing.assert_array_equal(tuner.run.theta[name], theta)
        assert np.abs(theta - bundle.trainables()[name]).max() > 0
    for name in tuner.run.theta.keys() - tail.keys():
        np.testing.assert_array_equal(tuner.run.theta[name], other.run.theta[name])


@pytest.mark.parametrize("kind", ["labels", "candidates", "completion"])
def test_a_cut_run_ends_with_the_same_bits(bundle, tmp_path, kind):
    examples = random_set(kind, SIZES, bundle.manifest.tokenizer.pad_id)
    with Tuner.open(bundle, examples, BASE, tmp_path / "whole") as tuner:
        list(tuner)
        expected = bits(tuner)
    with Tuner.open(bundle, examples, BASE, tmp_path / "cut") as tuner:
        for _ in range(4):
            tuner.step()
    # The snapshot is that of step 0: the journal alone brings four gradients back.
    with Tuner.open(bundle, examples, BASE, tmp_path / "cut", resume=True) as tuner:
        assert tuner.step_number == 4
        list(tuner)
        assert bits(tuner) == expected


def test_the_journal_keeps_the_gradient_of_the_tail_alone(bundle, examples, tmp_path):
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        tuner.step()
        numbers = sum(
            tuner.run.theta[name].size for name in tuner.run.trajectory.layout.first_order.names
        )
        (record,) = read_journal(tuner.run.folder.journal).records
        tensors = len(tuner.run.trajectory.layout.first_order.names)
    assert len(record.extra) == 4 + 4 * tensors + numbers


def test_the_loss_falls(bundle, examples, tmp_path):
    config = dataclasses.replace(BASE, steps=30, batch_size=8, first_order_lr=0.05)
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        before = tuner.evaluate(examples).loss
        list(tuner)
        assert tuner.evaluate(examples).loss < 0.5 * before


@pytest.mark.parametrize("blocks", [3, -1])
def test_a_tail_of_blocks_that_are_not_there_is_refused(bundle, examples, tmp_path, blocks):
    config = dataclasses.replace(BASE, first_order=blocks)
    with pytest.raises(UsageError, match=f"--first-order {blocks}: "):
        Tuner.open(bundle, examples, config, tmp_path)


@pytest.mark.parametrize("given", [{"first_order": 2}, {"blocks": "1"}], ids=str)
def test_a_tail_may_leave_nothing_to_estimates(bundle, examples, tmp_path, given):
    config = dataclasses.replace(BASE, **given)
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        batch = tuner.run.probes.batches.batch(0)
        report = tuner.step()
        assert report.rows == batch.num_rows
        assert tuner.run.estimated_blocks == []
    (record,) = read_journal(tuner.run.folder.journal).records
    assert record.losses.shape == (1, batch.num_examples)
    assert report.loss == pytest.approx(record.losses.mean(), rel=1e-6)


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


def test_a_record_of_another_length_is_refused(bundle):
    layout = FirstOrderLayout(bundle.manifest, 1)
    with pytest.raises(RunFileError, match="3 bytes in the journal"):
        layout.unpack(b"abc")


def test_a_gradient_that_is_not_finite_stops_the_step(bundle, examples, tmp_path):
    with Tuner.open(bundle, examples, BASE, tmp_path) as tuner:
        name = tuner.run.trajectory.layout.first_order.names[0]
        with pytest.raises(DivergedError, match="not finite"):
            tuner.run.evaluator.first_order.gradient(
                tuner.run.probes.batches.batch(0),
                tuner.run.theta | {name: np.full_like(tuner.run.theta[name], np.inf)},
                "all",
                None,
                0,
            )


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
        before = {name: value.copy() for name, value in tuner.run.theta.items()}
        tuner.step()
        changed = {n for n in before if not np.array_equal(tuner.run.theta[n], before[n])}
    able = {i.name for i in bundle.manifest.trainables if i.trains}
    expected = {name for name in able if modules == "auto" or "v_proj" in name}
    assert changed == expected
    assert expected


def test_blocks_that_the_tail_does_not_have_are_refused(bundle):
    config = dataclasses.replace(BASE, blocks="0")
    with pytest.raises(UsageError, match="--blocks 0 leaves nothing to train from block 1 on"):
        FirstOrderLayout(bundle.manifest, 1, config)


def test_a_gradient_too_long_for_the_journal(bundle, examples, monkeypatch, tmp_path):
    monkeypatch.setattr("edgezo_runtime.training.first_order_layout.MAX_BODY", 2**20 + 100)
    assert "whose records end at" in (why_no_first_order(bundle.manifest) or "")
    config = TuneConfig(steps=1, max_time_s=0, batch_size=2)
    assert (
        unstarted(Engine(bundle), examples, config, RunFolder(tmp_path)).run.rates.num_first_order
        == 0
    )
    with pytest.raises(UsageError, match=r"--first-order 1: .* take fewer blocks"):
        FirstOrderLayout(bundle.manifest, 1)


def test_a_resume_is_planned_for_what_it_resumes(bundle, examples, tmp_path):
    config = TuneConfig(steps=4, max_time_s=0, batch_size=2)
    tuner = unstarted(Engine(bundle), examples, config, RunFolder(tmp_path))
    tuner.run.trajectory.drop_first_order()
    with tuner:
        tuner.start()
    again = unstarted(Engine(bundle), examples, config, RunFolder(tmp_path))
    assert again.run.rates.num_first_order == 2
    again.run.recall()
    assert again.run.rates.num_first_order == 0
    kept = unstarted(Engine(bundle), examples, config, RunFolder(tmp_path / "other"))
    with kept:
        kept.start()
    other = unstarted(Engine(bundle), examples, config, RunFolder(tmp_path / "other"))
    other.run.recall()
    assert not other.run.trajectory.drop_first_order()  # too small a budget is refused instead
    assert other.run.rates.num_first_order == 2
