"""First-order steps on a GPU: gradients, memory, and what becomes of runs. See `conftest.py`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.devices.device import Device
from edgezo_runtime.devices.uploads import BoundSession
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.first_order import FirstOrderGradient, FirstOrderResult
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.errors import DeviceLostError, UsageError
from tests.runtime.devices.conftest import tiny
from tests.runtime.devices.test_gpu_passes import SIZES
from tests.runtime.engine.test_engine import batch_of
from tests.runtime.tiny_sets import random_set
from tests.runtime.written_texts import moved

CLOSE = 1e-5
"""Largest difference of gradients per unit of the largest number: float32 sums in another order, on
the way there and on the way back. The processor's are within 2e-5 of torch's in float64."""

pytestmark = pytest.mark.slow


def gradient_of(
    bundle: Bundle, batch: Batch, scope: Scope = "all", **options: Any
) -> FirstOrderResult:
    return FirstOrderGradient(Engine(bundle, **options), 0).gradient(
        batch, moved(bundle), scope=scope
    )


def assert_close(found: FirstOrderResult, expected: FirstOrderResult) -> None:
    np.testing.assert_allclose(found.losses, expected.losses, rtol=0, atol=1e-5)
    assert found.gradients.keys() == expected.gradients.keys()
    for name, grad in expected.gradients.items():
        difference = np.abs(found.gradients[name] - grad).max()
        assert np.abs(grad).max() > 0, name
        assert difference <= CLOSE * np.abs(grad).max(), name


@pytest.mark.parametrize("quant", ["fp32", "w8"])
def test_gradients_are_those_of_the_processor(free_gpu: Device, quant: str) -> None:
    bundle = tiny(quant)
    labels, completions = (batch_of(bundle, kind, SIZES) for kind in ("labels", "completion"))
    for batch, scope in ((labels, "all"), (labels, "answer"), (completions, "all")):
        found = gradient_of(bundle, batch, scope, device=free_gpu)
        assert_close(found, gradient_of(bundle, batch, scope))


def test_w4_gradients_are_the_slopes_of_the_losses(free_gpu: Device) -> None:
    """The processor's w4 weights are others: it rounds them to levels. So the GPU's own losses are
    the reference, a little forward and back along signs: (L(t + h z) - L(t - h z)) / 2 h = g z."""
    bundle = tiny("w4")
    batch, theta = batch_of(bundle, "labels", SIZES), moved(bundle)
    engine = Engine(bundle, device=free_gpu)
    found = FirstOrderGradient(engine, 0).gradient(batch, theta).gradients
    generator, h = np.random.default_rng(0), np.float32(1e-3)
    signs = {
        name: generator.choice([-1, 1], grad.shape).astype(np.float32)
        for name, grad in found.items()
    }

    def loss(step: np.float32) -> float:
        near = {name: theta[name] + step * signs[name] for name in signs}
        scores = engine.score(batch, SharedParams({**theta, **near}))
        return float(example_losses(batch, scores)[0].mean())

    slope = (loss(h) - loss(-h)) / (2 * h)
    expected = sum(float((found[name] * signs[name]).sum()) for name in signs)
    # float32 losses are off by 1e-7 of some 4 nats, and the loss is no straight line
    assert slope == pytest.approx(expected, rel=5e-3, abs=1e-3)


def test_only_scores_and_gradients_come_back(free_gpu: Device) -> None:
    bundle = tiny("fp32")
    batch, ledger = batch_of(bundle, "labels", SIZES), free_gpu.ledger
    engine = Engine(bundle, device=free_gpu)
    gradient = FirstOrderGradient(engine, 0, part_tokens=1024)  # all rows in one part
    gradient.gradient(batch, moved(bundle))
    before = ledger.fetched_bytes
    result = gradient.gradient(batch, moved(bundle))
    scores = 4 * batch.num_rows * len(batch.label_ids)
    wanted = sum(grad.nbytes for grad in result.gradients.values())
    assert ledger.fetched_bytes - before == scores + wanted


def test_blocks_beyond_the_budget_are_streamed_there_and_back(free_gpu: Device) -> None:
    bundle = tiny("fp32")
    batch = batch_of(bundle, "labels", SIZES)
    engine, ledger = Engine(bundle, device=free_gpu), free_gpu.ledger
    engine.limits = dataclasses.replace(engine.limits, fetch_bytes=1)  # one block at a time
    gradient = FirstOrderGradient(engine, 0, part_tokens=32)
    engine.give_back()
    ledger.restart(None)
    expected = gradient.gradient(batch, moved(bundle))
    assert ledger.passes_peaks["gradient"] == ledger.passes_peak_bytes
    engine.give_back()
    # All parts wait between blocks now, and blocks that come ahead have to make room for them.
    ledger.restart(ledger.peak_bytes - 1)
    found = gradient.gradient(batch, moved(bundle))
    assert "streaming all 2 blocks" in engine.reliefs[0]
    assert ledger.limit_bytes is not None
    assert ledger.peak_bytes <= ledger.limit_bytes
    np.testing.assert_array_equal(found.losses, expected.losses)
    for name, grad in expected.gradients.items():
        np.testing.assert_array_equal(found.gradients[name], grad)


def test_a_device_that_is_lost_on_the_way_back_ends_the_run(
    free_gpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny("fp32")
    batch = batch_of(bundle, "labels", SIZES)
    run = BoundSession.run_with_ort_values

    def lose(self: BoundSession, outputs: Any, feed: Any, options: Any = None) -> Any:
        if "grad" in feed:
            raise RuntimeError("WebGPU device lost (reason=2): the driver was reset")
        return run(self, outputs, feed, options)

    monkeypatch.setattr(BoundSession, "run_with_ort_values", lose)
    with pytest.raises(DeviceLostError, match="device was lost") as caught:
        gradient_of(bundle, batch, device=free_gpu)
    assert caught.value.exit_code == 4


def test_a_run_that_is_left_to_itself_takes_exact_gradients(
    free_gpu: Device, tmp_path: Path
) -> None:
    bundle = tiny("fp32")
    examples = random_set("labels", SIZES[:2], bundle.manifest.tokenizer.pad_id)

    def losses(device: Any) -> list[float]:
        config = TuneConfig(steps=3, batch_size=2)
        with Tuner.open(bundle, examples, config, tmp_path / device, device=device) as tuner:
            assert tuner.run.first_order_blocks == [0, 1]
            return [report.loss for report in tuner]

    assert losses("webgpu") == pytest.approx(losses("cpu"), rel=1e-3)


def test_bundles_without_these_graphs_are_refused_by_name(free_gpu: Device) -> None:
    bundle = tiny("fp32")
    gpu: Any = dataclasses.replace(bundle.manifest.gpu, backward="made by an older edgezo")  # type: ignore[type-var]
    older = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, gpu=gpu))
    with pytest.raises(
        UsageError, match=r"no backward graphs \(llama\) for the device webgpu.*export --force"
    ):
        FirstOrderGradient(Engine(older, device=free_gpu), 0)
