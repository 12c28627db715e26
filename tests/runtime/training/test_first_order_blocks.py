"""Exact gradients of the last blocks, and the steps that they take."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.errors import DivergedError, UsageError
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.methods.rules.adam import Adam
from edgezo_runtime.training.first_order_blocks import FirstOrderBlocks
from edgezo_runtime.training.first_order_layout import FirstOrderLayout
from tests.runtime.tuner_runs import FIRST_ORDER

pytestmark = pytest.mark.usefixtures("unsynced")


def test_the_gradient_is_the_slope_of_the_mean_loss(bundle: Bundle, examples: ExampleSet) -> None:
    """Along a random direction, by central differences; of the layout's tensors alone."""
    engine, layout = Engine(bundle), FirstOrderLayout(bundle.manifest, 1)
    batch, theta = make_batch(examples, range(4)), bundle.trainables()
    found = FirstOrderBlocks(engine, layout).gradient(batch, theta, "all", None, 0)
    assert set(found.gradients) == set(layout.names)
    random = np.random.default_rng(0)
    direction = {name: random.normal(size=theta[name].shape) for name in layout.names}

    def losses(scale: float) -> np.ndarray:
        moved = {
            name: (theta[name] + scale * z).astype(np.float32) for name, z in direction.items()
        }
        return example_losses(batch, engine.score(batch, SharedParams(theta | moved)))[0]

    np.testing.assert_allclose(found.losses, losses(0.0), rtol=1e-5)
    slope = sum(float((found.gradients[name] * z).sum()) for name, z in direction.items())
    measured = (losses(0.01).mean() - losses(-0.01).mean()) / 0.02
    assert slope == pytest.approx(measured, rel=0.02)


def test_a_bundle_without_backward_graphs_is_refused(bundle: Bundle) -> None:
    manifest = dataclasses.replace(bundle.manifest, backward="an operator has no gradient")
    engine = Engine(dataclasses.replace(bundle, manifest=manifest))
    with pytest.raises(UsageError, match="no backward graphs"):
        FirstOrderBlocks(engine, FirstOrderLayout(bundle.manifest, 1))


@pytest.mark.parametrize("scope", ["all", "answer"])
def test_a_step_is_both_halves_at_the_same_parameters(bundle, examples, tmp_path, scope):
    config = dataclasses.replace(FIRST_ORDER, scope=scope)
    alone = dataclasses.replace(config, first_order=0, first_order_lr="auto", blocks="0")
    with Tuner.open(bundle, examples, config, tmp_path / "first_order") as tuner:
        batch = tuner.run.probes.batches.batch(0)
        cache = tuner.run.probes.cache
        layout = tuner.run.trajectory.layout.first_order
        exact = FirstOrderGradient(tuner.run.engine, 1).gradient(
            batch, tuner.run.state.theta, scope, cache, 0
        )
        expected = layout.codec.unpack(layout.codec.pack(exact.gradients))
        tail = {name: tuner.run.state.theta[name].copy() for name in expected}
        report = tuner.step()
    with Tuner.open(bundle, examples, alone, tmp_path / "alone") as other:
        assert other.step().loss == report.loss
    rule = Adam()
    lr = float(np.float32(report.lr * (config.first_order_lr / config.lr)))
    for name, theta in tail.items():
        rule.apply(theta, expected[name], rule.init(theta), 0, lr)
        np.testing.assert_array_equal(tuner.run.state.theta[name], theta)
        assert np.abs(theta - bundle.trainables()[name]).max() > 0
    for name in tuner.run.state.theta.keys() - tail.keys():
        np.testing.assert_array_equal(tuner.run.state.theta[name], other.run.state.theta[name])


def test_the_journal_keeps_the_gradient_of_the_tail_alone(bundle, examples, tmp_path):
    with Tuner.open(bundle, examples, FIRST_ORDER, tmp_path) as tuner:
        tuner.step()
        numbers = sum(
            tuner.run.state.theta[name].size
            for name in tuner.run.trajectory.layout.first_order.names
        )
        (record,) = read_journal(tuner.run.folder.journal).records
        tensors = len(tuner.run.trajectory.layout.first_order.names)
    assert len(record.extra) == 4 + 4 * tensors + numbers


def test_the_loss_falls(bundle, examples, tmp_path):
    config = dataclasses.replace(FIRST_ORDER, steps=30, batch_size=8, first_order_lr=0.05)
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        before = tuner.evaluate(examples).loss
        list(tuner)
        assert tuner.evaluate(examples).loss < 0.5 * before


@pytest.mark.parametrize("given", [{"first_order": 2}, {"blocks": "1"}], ids=str)
def test_a_tail_may_leave_nothing_to_estimates(bundle, examples, tmp_path, given):
    config = dataclasses.replace(FIRST_ORDER, **given)
    with Tuner.open(bundle, examples, config, tmp_path) as tuner:
        batch = tuner.run.probes.batches.batch(0)
        report = tuner.step()
        assert report.rows == batch.num_rows
        assert tuner.run.trajectory.layout.blocks == []
    (record,) = read_journal(tuner.run.folder.journal).records
    assert record.losses.shape == (1, batch.num_examples)
    assert report.loss == pytest.approx(record.losses.mean(), rel=1e-6)


def test_a_gradient_that_is_not_finite_stops_the_step(bundle, examples, tmp_path):
    with Tuner.open(bundle, examples, FIRST_ORDER, tmp_path) as tuner:
        name = tuner.run.trajectory.layout.first_order.names[0]
        with pytest.raises(DivergedError, match="not finite"):
            tuner.run.evaluator.first_order.gradient(
                tuner.run.probes.batches.batch(0),
                tuner.run.state.theta | {name: np.full_like(tuner.run.state.theta[name], np.inf)},
                "all",
                None,
                0,
            )
