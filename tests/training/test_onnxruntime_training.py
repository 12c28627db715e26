"""On onnxruntime-training: blocks in plain form, our backward graphs, and its own artifacts.

`make test-training` runs these in an environment without torch, after writing the references.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.training.reference import FAMILIES, FOLDER, LR, STEPS, group, tiny_batch

_FOUND = importlib.util.find_spec("onnxruntime")
_PLACES = [] if _FOUND is None else list(_FOUND.submodule_search_locations or [])
pytestmark = [
    pytest.mark.training,
    pytest.mark.skipif(
        not any((Path(place) / "training" / "api").is_dir() for place in _PLACES),
        reason="needs onnxruntime-training: make test-training",
    ),
]
FIRST = 1


@pytest.fixture(params=FAMILIES)
def case(request):
    """A bundle, its engine, a batch and torch's answers."""
    from edgezo_runtime.bundle import Bundle
    from edgezo_runtime.engine import Engine

    bundle = Bundle.open(FOLDER / request.param)
    stored = np.load(FOLDER / request.param / "reference.npz")
    return Engine(bundle, threads=2), tiny_batch(bundle), dict(stored)


def test_gradient_of_our_graphs_is_that_of_torch(case):
    from edgezo_runtime.first_order import TailGradient

    engine, batch, stored = case
    found = TailGradient(engine, 0).gradient(batch, group(stored, "theta"))
    assert found.losses.mean() == pytest.approx(float(stored["loss"]), abs=1e-5)
    for name, expected in group(stored, "gradient").items():
        if name in found.gradients:
            close = 2e-5 * np.abs(expected).max()  # float32 here, float64 there
            np.testing.assert_allclose(found.gradients[name], expected, rtol=0, atol=close)
    assert found.gradients.keys() <= group(stored, "gradient").keys()


def test_antithetic_losses_take_the_plain_form_as_well(case):
    """Zeroth-order and first-order steps of one run need both."""
    from edgezo_runtime.coding import code_matrices
    from edgezo_runtime.engine import SharedParams
    from edgezo_runtime.estimators import Probe
    from edgezo_runtime.losses import example_losses
    from edgezo_runtime.perturbed import PerturbedParams

    engine, batch, stored = case
    theta = group(stored, "theta")
    probes = [Probe(3, 0.1, False), Probe(3, -0.1, False)]
    params = PerturbedParams(theta, set(theta), probes, batch.row_example, "rademacher")
    both = engine.score(batch, params, code_matrices([0.1, -0.1]))
    for group_index in range(2):
        alone = {
            name: params.copies(name, np.arange(batch.num_rows))[group_index] for name in theta
        }
        expected = engine.score(batch, SharedParams(alone))
        np.testing.assert_allclose(
            example_losses(batch, both)[group_index],
            example_losses(batch, expected)[0],
            atol=1e-5,
        )


@pytest.mark.parametrize("part_tokens", [64, 4096], ids=["in parts", "at once"])
def test_artifacts_take_the_steps_of_torch(case, tmp_path, part_tokens):
    from edgezo_export.training_artifacts import write_training_artifacts
    from edgezo_runtime.ort_training import TrainingTail

    engine, batch, stored = case
    theta = engine.bundle.trainables()
    files = write_training_artifacts(engine.bundle, FIRST, tmp_path / "artifacts")
    tail = TrainingTail(engine, FIRST, files, part_tokens)
    losses = [tail.step(batch, theta, LR) for _ in range(STEPS)]
    np.testing.assert_allclose(losses, stored["losses"], atol=1e-4)
    expected = group(stored, "tuned")
    tuned = tail.values()
    assert tuned.keys() == expected.keys()
    for name, value in expected.items():
        # AdamW divides by the root of the squared gradient: where that is nearly nothing, float32
        # and float64 differ by a part of a step.
        np.testing.assert_allclose(tuned[name], value, rtol=0, atol=0.02 * LR)


def test_artifacts_refuse_what_has_no_label_words(case, tmp_path):
    from edgezo_export.training_artifacts import write_training_artifacts
    from edgezo_runtime.batches import make_batch
    from edgezo_runtime.errors import UsageError
    from edgezo_runtime.ort_training import TrainingTail
    from tests.runtime.tiny_sets import random_set

    engine, _, _ = case
    theta = engine.bundle.trainables()
    files = write_training_artifacts(engine.bundle, FIRST, tmp_path / "artifacts")
    batch = make_batch(random_set("completion", (3, 4), 0), range(2))
    with pytest.raises(UsageError, match="label words"):
        TrainingTail(engine, FIRST, files).step(batch, theta, LR)
