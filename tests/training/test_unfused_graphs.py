"""Hybrid runs as users start them, on an onnxruntime that only runs blocks in plain form.

`make test-training` runs these on onnxruntime-training, whose 1.19 is such a one.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tests.training.reference import FAMILIES, FOLDER, QUANTS, group, tiny_batch

pytestmark = pytest.mark.training
CONTINUING = ("llama", "gpt2")
SIZES = (4, 7, 5, 3, 6, 4, 8, 5)
KINDS = ("labels", "candidates", "completion")
BUNDLES = [(name, quant) for name, own in QUANTS.items() for quant in own]


def opened(family: str, quant: str = "fp32"):
    """A bundle."""
    from edgezo_runtime.bundle.bundle import Bundle

    return Bundle.open(FOLDER / quant / family)


def references(family: str) -> dict[str, np.ndarray]:
    """Torch's answers."""
    return dict(np.load(FOLDER / "fp32" / family / "reference.npz"))


def assert_close(found, expected, tolerance: float) -> None:
    """Gradients by name, as a share of the largest number of each."""
    for name, grad in found.items():
        close = tolerance * np.abs(expected[name]).max()
        np.testing.assert_allclose(grad, expected[name], rtol=0, atol=close)


def test_blocks_run_in_plain_form():
    """Else this file tests nothing of its own."""
    from edgezo_runtime.devices.cpu import CPU
    from edgezo_runtime.engine.block_forms import runnable

    for family, quant in BUNDLES:
        manifest = opened(family, quant).manifest
        forms = runnable(manifest, CPU)
        for plain, graph in zip(forms, manifest.graphs.blocks, strict=True):
            assert plain.file.endswith(".plain.onnx")
            assert plain.past == graph.past


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("scope", "kind"), [("all", "gradient"), ("answer", "answers")])
def test_gradient_of_whole_rows_is_that_of_torch(family, scope, kind):
    """Every block takes an empty past."""
    from edgezo_runtime.engine.engine import Engine
    from edgezo_runtime.engine.first_order import FirstOrderGradient

    bundle, stored = opened(family), references(family)
    tail = FirstOrderGradient(Engine(bundle, threads=2), 0)
    found = tail.gradient(tiny_batch(bundle), group(stored, "theta"), scope)
    if scope == "all":
        assert found.losses.mean() == pytest.approx(float(stored["loss"]), abs=1e-5)
    assert set(found.gradients) == {i.name for i in bundle.manifest.trainables if i.trains}
    assert_close(found.gradients, group(stored, kind), 2e-5)  # float32 here, float64 there


@pytest.mark.parametrize("family", CONTINUING)
def test_gradient_of_last_tokens_is_that_of_torch(family, tmp_path):
    """Prompts are read once behind an empty past; last tokens follow what was kept of them."""
    from edgezo_runtime.engine.answer_states import KeyValueLayout
    from edgezo_runtime.engine.engine import Engine
    from edgezo_runtime.engine.first_order import FirstOrderGradient
    from edgezo_runtime.engine.prefix_cache import AnswerCache

    bundle, stored = opened(family), references(family)
    batch = tiny_batch(bundle)
    layout = KeyValueLayout.of(bundle.manifest.graphs, 0)
    width = bundle.manifest.model.hidden_size
    cache = AnswerCache(tmp_path / "states", batch.lengths, width, layout)
    tail = FirstOrderGradient(Engine(bundle, threads=2), 0)
    first, second = (
        tail.gradient(batch, group(stored, "theta"), "answer", cache).gradients for _ in range(2)
    )
    for name, grad in first.items():
        np.testing.assert_array_equal(second[name], grad)
    assert_close(first, group(stored, "answers"), 5e-3)  # the cache keeps float16
    cache.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_coded_losses_are_those_of_every_probe_alone(family):
    """The plain form takes no code: every group has its own rows."""
    from edgezo_runtime.engine.engine import Engine, SharedParams
    from edgezo_runtime.engine.losses import example_losses
    from edgezo_runtime.engine.pair_coding import code_matrices
    from edgezo_runtime.methods.estimators import Probe
    from tests.runtime.dense_directions import dense_params, trained_blocks

    bundle, theta = opened(family), group(references(family), "theta")
    batch = tiny_batch(bundle)
    engine = Engine(bundle, threads=2)
    probes = [Probe(3, 0.1, False), Probe(3, -0.1, False)]
    params = dense_params(theta, trained_blocks(bundle), probes, batch.row_example)
    both = example_losses(batch, engine.score(batch, params, code_matrices([0.1, -0.1])))
    assert np.abs(both[0] - both[1]).max() > 1e-2
    for own, losses in enumerate(both):
        copies = {name: params.copies(name, np.arange(batch.num_rows)) for name in theta}
        alone = {name: value[own % len(value)] for name, value in copies.items()}  # frozen: one
        expected = example_losses(batch, engine.score(batch, SharedParams(alone)))[0]
        np.testing.assert_allclose(losses, expected, atol=1e-5)


def hybrid_config(**given):
    """The last block by gradients, the other by estimates."""
    from edgezo_runtime.config import TuneConfig

    config = TuneConfig(
        steps=30, max_time_s=0, batch_size=8, lr=0.03, eps=0.01, blocks="all", first_order=1,
        first_order_lr=0.05,
    )  # fmt: skip
    return dataclasses.replace(config, **given)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("family", "quant"), BUNDLES)
def test_the_loss_falls(family, quant, kind, tmp_path):
    from edgezo_runtime.app.tuner import Tuner
    from tests.runtime.tiny_sets import random_set

    if family == "roberta" and kind == "completion":
        pytest.skip("encoders complete nothing")
    bundle = opened(family, quant)
    examples = random_set(kind, SIZES, bundle.manifest.tokenizer.pad_id)
    with Tuner.open(bundle, examples, hybrid_config(), tmp_path) as tuner:
        before = tuner.evaluate(examples).loss
        list(tuner)
        assert tuner.evaluate(examples).loss < 0.7 * before


@pytest.mark.parametrize("scope", ["all", "answer"])
@pytest.mark.parametrize("quant", QUANTS["llama"])
def test_a_cut_run_ends_with_the_same_bits(quant, scope, tmp_path):
    from tests.runtime.tiny_sets import random_set
    from tests.runtime.tuner_runs import resumed_bits, run_to_the_end

    bundle = opened("llama", quant)
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    config = hybrid_config(steps=6, batch_size=2, save_every=1000, scope=scope)
    expected = run_to_the_end(bundle, examples, config, tmp_path / "whole")
    # The snapshot is that of step 0: the journal alone brings four gradients back.
    assert resumed_bits(bundle, examples, config, tmp_path / "cut", 4) == expected


@pytest.mark.parametrize("given", [(), ("--first-order", 1, "--lr", 0.03, "--eps", 0.01)], ids=str)
def test_the_command_tunes(given, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from edgezo.cli import main

    monkeypatch.chdir(tmp_path)
    rows = [
        {"text": f"w{20 + index + 30 * (index % 2)} w{30 + index}", "label": index % 2}
        for index in range(24)
    ]
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "valid"):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"template": "{text} w4", "labels": [" w10", " w11"]}
    (data / "task.json").write_text(json.dumps(task))
    command = [
        "tune", FOLDER / "int8" / "llama", "--budget", "8GB", "--data", data, "--steps", 20,
        "--batch-size", 8, "--threads", 1, "-o", "run", "--json", *given,
    ]  # fmt: skip
    done = CliRunner().invoke(main, [str(word) for word in command])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["steps"] == 20
    assert result["loss_after"] < 0.8 * result["loss_before"]
