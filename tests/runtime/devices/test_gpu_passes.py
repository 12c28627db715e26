"""Passes on a GPU against the same passes on the processor. See `conftest.py` for the GPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.devices.choice import Wanted
from edgezo_runtime.devices.cpu import Cpu
from edgezo_runtime.devices.device import Device, Opening
from edgezo_runtime.devices.faults import ShortOfDeviceError
from edgezo_runtime.devices.uploads import BoundSession
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.errors import BudgetStopError, BundleError, DeviceLostError, UsageError
from edgezo_runtime.generation.generator import GenerationConfig
from edgezo_runtime.generation.kept_text import KeptText
from tests.runtime.devices.conftest import tiny
from tests.runtime.engine.test_engine import batch_of, perturbed_scores, probes_of
from tests.runtime.tiny_sets import random_set
from tests.runtime.written_texts import moved, prompts_of, writer

CLOSE = 5e-6
"""Largest difference of scores per unit of the largest: float32 sums in another order."""

SIZES = (5, 9, 21, 13)
"""One batch for most tests: what takes time is that a driver compiles anew for other shapes."""

CONFIG = GenerationConfig(4)

pytestmark = pytest.mark.slow


class GpuForms(Cpu):
    """The processor, which runs the graphs for GPUs: the same numbers by other kernels."""

    name: Any = "cpu-gpu-forms"
    form: Any = "gpu"
    segments = False


def theta_of(bundle: Bundle) -> dict[str, np.ndarray]:
    """Adapters that do something."""
    return moved(bundle)


def assert_close(found: np.ndarray, expected: np.ndarray, share: float = CLOSE) -> None:
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())


@pytest.mark.parametrize("quant", ["fp32", "w8", "w4"])
def test_scores_are_those_of_the_processor(free_gpu: Device, quant: str) -> None:
    bundle = tiny(quant)
    theta, probes = theta_of(bundle), probes_of(2, private=False)
    engine, same_graphs = Engine(bundle, device=free_gpu), Engine(bundle, device=GpuForms())
    for kind in ("labels", "completion"):
        batch = batch_of(bundle, kind, SIZES)
        found = perturbed_scores(engine, theta, batch, probes)
        assert_close(found, perturbed_scores(same_graphs, theta, batch, probes))
        own = perturbed_scores(Engine(bundle), theta, batch, probes)
        if quant == "w4":
            # The processor rounds activations to 8 bits and weights to levels, GPUs do not: about
            # 1 % per product. The norm is compared, as the largest of a few scores is chance.
            assert np.linalg.norm(found - own) <= 0.06 * np.linalg.norm(own)
        else:
            assert_close(found, own)


@pytest.mark.parametrize("name", ["gemma3_text", "gpt2"])
def test_windows_caps_and_learned_positions(free_gpu: Device, name: str) -> None:
    bundle = tiny("fp32", name)
    theta, probes = theta_of(bundle), probes_of(2, private=False)
    batch = batch_of(bundle, "labels", SIZES)
    found = perturbed_scores(Engine(bundle, device=free_gpu), theta, batch, probes)
    assert_close(found, perturbed_scores(Engine(bundle), theta, batch, probes))


@pytest.mark.parametrize("private", [False, True])
def test_slopes_of_pairs_are_those_of_the_processor(free_gpu: Device, private: bool) -> None:
    """A finite difference is small against the losses: here 1e-2 of them."""
    bundle = tiny("fp32")
    theta, probes = theta_of(bundle), probes_of(2, private=private)
    batch = batch_of(bundle, "labels", SIZES)

    def slopes(engine: Engine) -> np.ndarray:
        losses = example_losses(batch, perturbed_scores(engine, theta, batch, probes))
        return (losses[0] - losses[1]) / (probes[0].scale - probes[1].scale)

    expected = slopes(Engine(bundle))
    difference = np.abs(slopes(Engine(bundle, device=free_gpu)) - expected).max()
    assert difference <= 1e-3 * np.abs(expected).max()


def test_only_scores_come_back(free_gpu: Device) -> None:
    bundle = tiny("fp32")
    theta, probes = theta_of(bundle), probes_of(2, private=False)
    batch = batch_of(bundle, "labels", SIZES)
    engine = Engine(bundle, device=free_gpu)
    perturbed_scores(engine, theta, batch, probes)
    ledger = free_gpu.ledger
    sent, fetched = ledger.sent_bytes, ledger.fetched_bytes
    scores = perturbed_scores(engine, theta, batch, probes)
    assert ledger.fetched_bytes - fetched == scores.nbytes
    # Embedded tokens, perturbed adapters and tables of positions; no weights.
    weights = sum(engine.model.block_bytes(index) for index in range(engine.num_blocks))
    assert 0 < ledger.sent_bytes - sent < weights


def test_blocks_beyond_the_budget_are_streamed(free_gpu: Device) -> None:
    bundle = tiny("fp32")
    theta, probes = theta_of(bundle), probes_of(2, private=False)
    batch = batch_of(bundle, "labels", SIZES)
    engine, ledger = Engine(bundle, device=free_gpu), free_gpu.ledger
    engine.limits = dataclasses.replace(engine.limits, fetch_bytes=1)  # one block at a time
    engine.give_back()
    ledger.restart(None)
    expected = perturbed_scores(engine, theta, batch, probes)
    engine.give_back()
    passes, nothing = ledger.passes_peak_bytes, ledger.held_bytes
    blocks = [engine.model.block_bytes(index) for index in range(engine.num_blocks)]
    ledger.limit_bytes = nothing + passes + engine.model.vocabulary_bytes + max(blocks)
    ledger.peak_bytes = nothing
    assert not engine.streamed
    found = perturbed_scores(engine, theta, batch, probes)
    np.testing.assert_array_equal(found, expected)
    assert "streaming all 2 blocks" in engine.reliefs[0]
    assert ledger.peak_bytes <= ledger.limit_bytes
    np.testing.assert_array_equal(perturbed_scores(engine, theta, batch, probes), expected)
    assert len(engine.streamed) == 2


def test_memory_that_is_refused_for_ever_ends_the_run(free_gpu: Device) -> None:
    bundle = tiny("fp32")
    theta, probes = theta_of(bundle), probes_of(2, private=False)
    batch = batch_of(bundle, "labels", SIZES[:1])
    engine = Engine(bundle, device=free_gpu)
    engine.give_back()
    free_gpu.ledger.limit_bytes = free_gpu.ledger.held_bytes + 100
    with pytest.raises(BudgetStopError, match="would take the device to"):
        perturbed_scores(engine, theta, batch, probes)
    assert "streaming all 2 blocks" in engine.reliefs[0]
    assert "chunks of" in engine.reliefs[-1]
    free_gpu.ledger.limit_bytes = None
    found = perturbed_scores(engine, theta, batch, probes)
    assert_close(found, perturbed_scores(Engine(bundle), theta, batch, probes))


def test_an_allocation_that_fails_is_answered(
    free_gpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny("fp32")
    theta, probes = theta_of(bundle), probes_of(2, private=False)
    batch = batch_of(bundle, "labels", SIZES)
    engine = Engine(bundle, device=free_gpu)
    run, failed = BoundSession.run_with_ort_values, []

    def fail_once(self: BoundSession, *args: Any) -> Any:
        if not failed:
            failed.append(1)
            raise RuntimeError("Failed to create buffer: out of memory")
        return run(self, *args)

    monkeypatch.setattr(BoundSession, "run_with_ort_values", fail_once)
    found = perturbed_scores(engine, theta, batch, probes)
    assert failed
    assert engine.reliefs
    assert_close(found, perturbed_scores(Engine(bundle), theta, batch, probes))


def test_a_device_that_is_lost_ends_the_run(
    free_gpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny("fp32")
    batch = batch_of(bundle, "labels", SIZES)

    def lose(*args: Any) -> Any:
        raise RuntimeError("WebGPU device lost (reason=2): the driver was reset")

    monkeypatch.setattr(BoundSession, "run_with_ort_values", lose)
    engine = Engine(bundle, device=free_gpu)
    with pytest.raises(DeviceLostError, match=r"device was lost.*resume the run") as caught:
        perturbed_scores(engine, theta_of(bundle), batch, probes_of(2, private=False))
    assert caught.value.exit_code == 4


def test_greedy_texts_are_those_of_the_processor(free_gpu: Device) -> None:
    """Prompts of several lengths; then one that begins as a kept text, of which a pass reads five
    tokens at once."""
    bundle = tiny("fp32")
    params, prompts = moved(bundle), prompts_of((5, 13))
    further = [9, 33, 70, 12]

    def written(engine: Engine) -> list[list[int]]:
        generator, kept = writer(bundle, engine), KeptText()
        found = [text.tokens for text in generator.generate(prompts, params, CONFIG)]
        (*_, first) = generator.stream(prompts[:1], params, CONFIG, kept=kept)
        read = generator.prompt_tokens
        second = [*prompts[0], *first.text.tokens, *further]
        (*_, last) = generator.stream([second], params, CONFIG, kept=kept)
        assert generator.prompt_tokens - read == len(further) + 1
        return [*found, last.text.tokens]

    assert written(Engine(bundle, device=free_gpu)) == written(Engine(bundle))


def test_keys_and_values_stay_on_the_gpu(free_gpu: Device) -> None:
    """Per token the logits come back; what goes there is less than the keys of one block."""
    bundle = tiny("fp32")
    params, prompts, ledger = moved(bundle), prompts_of((30, 21)), free_gpu.ledger
    generator = writer(bundle, Engine(bundle, device=free_gpu))
    texts = generator.stream(prompts, params, CONFIG)
    next(texts), next(texts)  # both prompts are read
    heads, width = next(graph.past for graph in bundle.manifest.graphs.blocks)
    block = 4 * 2 * heads * width * (30 + 21)
    crossed: list[tuple[int, int]] = []
    while True:
        before = ledger.sent_bytes, ledger.fetched_bytes
        if next(texts, None) is None:
            break
        next(texts)  # the other text: one pass reads a token of each
        crossed.append((ledger.sent_bytes - before[0], ledger.fetched_bytes - before[1]))
    # The first such pass takes the adapters and the tables of positions along; the last one wrote
    # what was read before.
    for sent, fetched in crossed[1:]:
        assert fetched == 4 * len(prompts) * bundle.manifest.model.vocab_size
        assert sent < block


def test_a_run_of_feedback_has_the_losses_of_the_processor(
    free_gpu: Device, tmp_path: Path
) -> None:
    bundle = tiny("fp32")
    examples = random_set("labels", SIZES[:2], bundle.manifest.tokenizer.pad_id)

    def losses(device: Wanted) -> list[float]:
        config = TuneConfig(steps=3, batch_size=2, first_order=0)
        with Tuner.open(bundle, examples, config, tmp_path / device, device=device) as tuner:
            assert tuner.run.config.method == "feedback"
            return [report.loss for report in tuner]

    assert losses("webgpu") == pytest.approx(losses("cpu"), rel=1e-4)


def test_a_bundle_without_graphs_for_gpus_is_refused_by_name(free_gpu: Device) -> None:
    with pytest.raises(UsageError, match=r"\(int8\) does not run on the device webgpu.*--quant w8"):
        Engine(tiny("int8"), device=free_gpu)


def test_a_node_that_the_gpu_lacks_is_named(free_gpu: Device) -> None:
    path = tiny("fp32").root / "graphs/block_0.backward.onnx"
    with pytest.raises(BundleError, match=r"webgpu cannot run node '\w+' \(\w+\) and \d+ more"):
        free_gpu.open(Opening(path.read_bytes(), str(path), in_order=True))


def test_a_value_beyond_the_limit_is_refused(free_gpu: Device) -> None:
    free_gpu.ledger.limit_bytes = free_gpu.ledger.held_bytes + 10
    with pytest.raises(ShortOfDeviceError, match="a value would take"):
        free_gpu.put(np.zeros(4, np.float32))
