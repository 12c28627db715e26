"""Learned feedback end to end: forward passes alone lower the loss of the rows they are about."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.export import ExportConfig, export_bundle
from edgezo_export.schemes.lora import Lora
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.engine.engine import Engine
from tests.benchmarks.feedback import BATCH, Learner, errors
from tests.benchmarks.feedback_texts import cosine
from tests.bundles.tiny import tiny_model
from tests.runtime.tiny_sets import random_set

ROWS = 2 * BATCH


@pytest.mark.slow
@pytest.mark.parametrize("quant", ["fp32", "int8"])
def test_it_learns_rows_by_heart(exported, tmp_path, quant):
    """The loss of rows whose classes follow from nothing falls by a third."""
    bundle = exported("llama").bundle(quant).bundle
    rows = random_set("labels", [5 + n % 7 for n in range(ROWS)], bundle.manifest.tokenizer.pad_id)
    engine = Engine(Bundle.open(bundle.root), threads=1)
    learner = Learner(engine, rows, rows, 0, tmp_path, seed=0)
    before = learner.evaluate()
    estimate = learner.probe(512, 0.1)
    assert estimate.pairs == 512
    assert learner.evaluate().loss == pytest.approx(before.loss, abs=1e-6)  # A is zero
    state = learner.state()
    for _ in learner.steps(60, 0.2):
        pass
    after = learner.evaluate(60)
    assert after.forwards == 2 * 512 + 60 * BATCH
    assert after.loss < 2 / 3 * before.loss
    learner.restore(state)
    assert learner.evaluate().loss == pytest.approx(before.loss, abs=1e-6)
    assert not any(learner.theta[site.name_a].any() for site in learner.sites)
    learner.close()
    engine.close()


@pytest.mark.slow
def test_its_gradient_points_as_the_exact_one(tmp_path):
    """Before the first step, in a model of random weights."""
    scheme = Lora(rank=2, alpha=4.0, targets=("o_proj", "down_proj"), lora_train="ab")
    config = ExportConfig(quant="fp32", scheme=scheme)
    export_bundle(str(tiny_model("llama")), tmp_path / "bundle", config)
    bundle = Bundle.open(tmp_path / "bundle")
    rows = random_set("labels", [5 + n % 7 for n in range(ROWS)], bundle.manifest.tokenizer.pad_id)
    learner = Learner(Engine(bundle, threads=1), rows, rows, 0, tmp_path, seed=0)
    learner.probe(512, 0.1)
    found, exact = learner.compare()
    assert len(found) == 4
    assert all(cosine(found[name], exact[name]) > 0.5 for name in found)
    learner.close()


def test_a_control_variate_needs_as_many_pairs_as_there_are_numbers():
    """The rest of a pair has d - 1 times its own square as variance, whatever its size."""
    generator = np.random.default_rng(0)
    exact = generator.normal(size=400).astype(np.float32)
    near = exact + 0.3 * generator.normal(size=400).astype(np.float32)
    for pairs, seeds in ((1, 1000), (40, 60), (400, 30)):
        made = np.array([errors(near, exact, pairs, seed) for seed in range(seeds)])
        assert made[:, 1].mean() == pytest.approx(399 / pairs * made[0, 0], rel=0.15)
