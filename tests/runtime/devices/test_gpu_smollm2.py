"""SmolLM2-135M on a GPU, for a few steps. See `conftest.py` for the GPU.

The driver that tests run on takes 15 s of processor time for a pair of losses of four tokens, and
would take a minute or more for a gradient. So exact gradients and texts go through the first and
the last block alone; the logits of a token take it 5 s.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.devices.device import Device
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.generation.generator import GenerationConfig
from tests.bundles.smollm2 import smollm2_bundle
from tests.runtime.engine.test_engine import batch_of, perturbed_scores, probes_of
from tests.runtime.written_texts import moved, writer

CLOSE = 2e-5
"""Largest difference per unit of the largest number: float32 sums of up to 1536 products in another
order, through 30 blocks, and back. 2e-6 was seen in scores."""

PROMPT = [504, 3575, 282]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engines(gpu: Device) -> tuple[Engine, Engine]:
    """The model with weights in 8 bits on the GPU, and on the processor."""
    gpu.ledger.limit_bytes = None
    bundle = Bundle.open(smollm2_bundle("w8"), verify=False)
    return Engine(bundle, device=gpu), Engine(bundle)


def test_losses_of_a_pair_are_those_of_the_processor(engines: tuple[Engine, Engine]) -> None:
    bundle = engines[0].bundle
    batch, theta = batch_of(bundle, "labels", (4,)), moved(bundle, 0.01)
    probes = probes_of(2, private=False)
    found, expected = (
        example_losses(batch, perturbed_scores(engine, theta, batch, probes)) for engine in engines
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE * np.abs(expected).max())


def test_gradients_and_texts_of_two_blocks_are_those_of_the_processor(
    engines: tuple[Engine, Engine],
) -> None:
    bundle = engines[0].bundle
    batch, theta = batch_of(bundle, "labels", (4,)), moved(bundle, 0.01)
    ends = frozenset({0, engines[0].num_blocks - 1})
    with ExitStack() as stack:
        for engine in engines:
            stack.enter_context(engine.sampling(ends))
        found, expected = (FirstOrderGradient(e, 0).gradient(batch, theta) for e in engines)
        texts = [writer(bundle, e).generate([PROMPT], theta, GenerationConfig(2)) for e in engines]
    np.testing.assert_allclose(found.losses, expected.losses, rtol=CLOSE)
    seen = {name: grad for name, grad in expected.gradients.items() if grad.any()}
    assert {info.block for info in bundle.manifest.trainables if info.name in seen} == ends
    for name, grad in seen.items():
        difference = np.abs(found.gradients[name] - grad).max()
        assert difference <= CLOSE * np.abs(grad).max(), name
    assert [text.tokens for text in texts[0]] == [text.tokens for text in texts[1]]
