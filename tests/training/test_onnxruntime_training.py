"""onnxruntime's own derivatives against torch's, and ours against onnxruntime's.

`make test-training` runs these in an environment without torch, after writing the references.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.reference import FAMILIES, FOLDER, LR, QUANTS, STEPS, group, tiny_batch

pytestmark = pytest.mark.training
FIRST = 1
"""The first block that trains."""


@pytest.fixture(params=FAMILIES)
def case(request):
    """An engine, a batch and torch's answers."""
    engine, batch = opened(request.param, "fp32")
    stored = np.load(FOLDER / "fp32" / request.param / "reference.npz")
    return engine, batch, dict(stored)


def opened(family: str, quant: str):
    """An engine and the batch of the comparison."""
    from edgezo_runtime.bundle.bundle import Bundle
    from edgezo_runtime.engine.engine import Engine

    bundle = Bundle.open(FOLDER / quant / family)
    return Engine(bundle, threads=2), tiny_batch(bundle)


def trained_blocks(engine, folder, **options):
    """Artifacts made and loaded."""
    from tests.training.ort_training import TrainedBlocks
    from tests.training.training_artifacts import write_training_artifacts

    files = write_training_artifacts(engine.bundle, FIRST, folder / "artifacts")
    return TrainedBlocks(engine, FIRST, files, **options)


@pytest.mark.parametrize("part_tokens", [64, 4096], ids=["in parts", "at once"])
def test_artifacts_take_the_steps_of_torch(case, tmp_path, part_tokens):
    engine, batch, stored = case
    theta = engine.bundle.trainables()
    blocks = trained_blocks(engine, tmp_path, part_tokens=part_tokens)
    losses = [blocks.step(batch, theta, LR) for _ in range(STEPS)]
    np.testing.assert_allclose(losses, stored["losses"], atol=1e-4)
    expected = group(stored, "tuned")
    tuned = blocks.values()
    assert tuned.keys() == expected.keys()
    for name, value in expected.items():
        # AdamW divides by the root of the squared gradient: where that is nearly nothing, float32
        # and float64 differ by a part of a step.
        np.testing.assert_allclose(tuned[name], value, rtol=0, atol=0.02 * LR)


@pytest.mark.parametrize("scope", ["all", "answer"])
@pytest.mark.parametrize(
    ("family", "quant"), [(name, quant) for name, own in QUANTS.items() for quant in own]
)
def test_our_gradient_is_that_of_onnxruntime(tmp_path, family, quant, scope):
    """Two derivations of one function, int8 weights and all: at parameters some steps away."""
    from edgezo_runtime.engine.first_order import FirstOrderGradient

    engine, batch = opened(family, quant)
    initial = engine.bundle.trainables()
    reference = trained_blocks(engine, tmp_path)
    for _ in range(STEPS):
        reference.step(batch, initial, LR, scope)
    theta = initial | reference.values()
    loss, expected = reference.gradient(batch, theta, scope)
    found = FirstOrderGradient(engine, FIRST).gradient(batch, theta, scope)
    assert found.losses.mean() == pytest.approx(loss, abs=1e-5)
    assert found.gradients.keys() == expected.keys()
    for name, grad in expected.items():
        close = 2e-5 * np.abs(grad).max()  # float32 on both sides, sums in another order
        np.testing.assert_allclose(found.gradients[name], grad, rtol=0, atol=close)


def test_artifacts_refuse_what_has_no_label_words(case, tmp_path):
    from edgezo_runtime.data.batches import make_batch
    from edgezo_runtime.errors import UsageError
    from tests.runtime.tiny_sets import random_set

    engine, _, _ = case
    batch = make_batch(random_set("completion", (3, 4), 0), range(2))
    with pytest.raises(UsageError, match="label words"):
        trained_blocks(engine, tmp_path).step(batch, engine.bundle.trainables(), LR)
