from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from edgezo_runtime.bundle.bundle import WEIGHTS_FILE, Bundle
from edgezo_runtime.data.batches import Batches
from edgezo_runtime.data.random_rows import random_rows
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.errors import EdgezoError
from tests.benchmarks import (
    budget,
    correlation,
    export_memory,
    generation,
    large_bundle,
    learning,
    models,
    page_cache,
    quantization,
    random_models,
    startup,
    step,
    streamed_steps,
    streaming,
    turns,
)
from tests.benchmarks.children import Child, call
from tests.benchmarks.edgezo_loop import LABEL_IDS, edgezo_steps
from tests.benchmarks.first_step import STAGES
from tests.benchmarks.mezo_loop import MezoLoop, add_lora, label_loss, mezo_steps, trained
from tests.benchmarks.targets import Target, missing_data, print_targets
from tests.benchmarks.tasks import TASKS, TaskRows
from tests.benchmarks.tune_child import tune

ROWS, TOKENS = 4, 8
SCHEME: dict[str, Any] = {"targets": models.TARGETS, "rank": models.RANK, "alpha": models.ALPHA}


def load_torch(folder: Path) -> Any:
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return startup.write_tiny_model(tmp_path_factory.mktemp("benchmarks") / "model")


@pytest.fixture(scope="module")
def int8(folder: Path) -> Path:
    models.export(str(folder), folder.parent / "int8", "int8", "ab")
    return folder.parent / "int8"


@pytest.fixture(scope="module")
def fp32(folder: Path) -> Path:
    models.export(str(folder), folder.parent / "fp32", "fp32", "ab")
    return folder.parent / "fp32"


@pytest.fixture
def lora_model(folder: Path) -> Any:
    model = load_torch(folder)
    torch.manual_seed(0)
    add_lora(model, train="ab", **SCHEME)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):  # at zero A has no slope
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def mezo(lora_model: Any) -> MezoLoop:
    return MezoLoop(trained(lora_model), eps=1e-2, lr=0.1)


@pytest.fixture
def torch_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randint(97, (ROWS, TOKENS), generator=generator),
        torch.tensor(LABEL_IDS),
        torch.arange(ROWS) % 2,
    )


@pytest.mark.slow
def test_both_sides_train_the_same_number_of_parameters(int8: Path, folder: Path) -> None:
    common: dict[str, Any] = {"steps": 2, "threads": None, "rows": ROWS, "tokens": TOKENS}
    ours = edgezo_steps(str(int8), **common)
    theirs = mezo_steps(str(folder), scheme=SCHEME | {"train": "ab"}, all_logits=True, **common)
    assert ours["trained"] == theirs["trained"] > 0
    assert len(ours["seconds"]) == len(theirs["seconds"]) == 2
    assert min(*ours["seconds"], *theirs["seconds"]) > 0


def test_mezo_moves_along_its_direction_only(
    mezo: MezoLoop, lora_model: Any, torch_batch: tuple[torch.Tensor, ...]
) -> None:
    before = [theta.clone() for theta in mezo.theta]
    directions = list(mezo._directions(7))
    projected_grad = mezo.step(7, lambda: label_loss(lora_model, *torch_batch, all_logits=False))
    for old, new, z in zip(before, mezo.theta, directions, strict=True):
        # Perturbing there and back rounds.
        torch.testing.assert_close(new, old - 0.1 * projected_grad * z, rtol=0, atol=1e-6)


def test_mezo_estimates_the_slope(
    mezo: MezoLoop, lora_model: Any, torch_batch: tuple[torch.Tensor, ...]
) -> None:
    input_ids, label_ids, labels = torch_batch
    logits = lora_model(input_ids).logits[:, -1, label_ids]
    loss: Any = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    slope = sum(
        float((theta.grad * z).sum())
        for theta, z in zip(mezo.theta, mezo._directions(3), strict=True)
        if theta.grad is not None
    )
    mezo.eps = 1e-3
    found = mezo.step(3, lambda: label_loss(lora_model, *torch_batch, all_logits=False))
    assert found == pytest.approx(slope, rel=0.02, abs=1e-3)


def test_mezo_finds_the_same_with_all_logits(
    lora_model: Any, torch_batch: tuple[torch.Tensor, ...]
) -> None:
    with torch.inference_mode():
        last = label_loss(lora_model, *torch_batch, all_logits=False)
        assert label_loss(lora_model, *torch_batch, all_logits=True) == pytest.approx(
            last, rel=1e-6
        )


def test_float32_copy_has_the_same_weights(folder: Path, tmp_path: Path) -> None:
    models.write_float32(str(folder), tmp_path / "copy")
    load = transformers.AutoModelForCausalLM.from_pretrained
    original, copy = load(folder).state_dict(), load(tmp_path / "copy").state_dict()
    assert original.keys() == copy.keys()
    for name, value in copy.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, original[name])


@pytest.mark.slow
def test_perplexity_is_that_of_torch(folder: Path, fp32: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.jsonl"
    generator = np.random.default_rng(0)
    with file.open("w") as lines:
        for length in (5, 20, 11):
            words = " ".join(f"w{n}" for n in generator.integers(4, 97, length))
            lines.write(json.dumps({"text": words}) + "\n")
    bundle = Bundle.open(fp32)
    tokenizer = TextTokenizer.open(bundle.root, bundle.manifest.tokenizer)
    texts = load_examples(file, tokenizer, max_seq=64)
    found = quantization.perplexity(Engine(bundle), SharedParams(bundle.trainables()), texts)

    model = load_torch(folder)
    scores = []
    for example in texts:
        tokens = torch.from_numpy(example.tokens.astype(np.int64))
        with torch.no_grad():
            logs = torch.log_softmax(model(tokens[None]).logits[0], -1)
        scores += [float(logs[place - 1, tokens[place]]) for place in example.places]
    assert found == pytest.approx(np.exp(-np.mean(scores)), rel=1e-4)


@pytest.mark.slow
def test_quantization_table(int8: Path, fp32: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = random_rows(24, TOKENS, 97, LABEL_IDS)
    found = []
    for path in (fp32, int8):
        bundle = Bundle.open(path)
        params = SharedParams(bundle.trainables())
        margins = quantization.label_margins(Engine(bundle), params, rows)
        found.append(quantization.Quality(40.0, margins, 0.5))
    ratio, apart = quantization.report(*found)
    assert ratio.value == 1
    assert 0 < apart.value < 0.1 * found[0].margins.std()
    assert "perplexity" in capsys.readouterr().out


@pytest.mark.slow
def test_coded_gradients_follow_float32(
    int8: Path, fp32: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = Batches(random_rows(16, TOKENS, 97, LABEL_IDS), 16, seed=0).batch(0)
    found = correlation.compare(int8, fp32, batch, directions=12, all_eps=(1e-1, 1e-3))
    small = found[1e-3]
    coded = correlation.correlation(small["coded"], small["fp32"])
    assert coded > 0.95
    assert coded > correlation.correlation(small["uncoded"], small["fp32"])
    assert [target.value for target in correlation.report(found)] == [coded]
    assert "fp32 at 0.001" in capsys.readouterr().out


@pytest.mark.slow
def test_start_in_a_child(int8: Path) -> None:
    stages = startup.measure_start(int8, rounds=1)
    seconds = [stages[name][0] for name in STAGES]
    megabytes = [stages[name][1] for name in STAGES]
    assert seconds[0] > 0
    assert sorted(seconds) == seconds
    assert 5 < megabytes[0] < megabytes[-1]


@pytest.mark.slow
def test_child_tells_its_peak(int8: Path) -> None:
    child = call(edgezo_steps, bundle=str(int8), steps=1, threads=1, rows=2, tokens=4)
    assert len(child.result["seconds"]) == 1
    assert 20 < child.peak_mb < 200
    assert child.wall_s > child.result["seconds"][0]


def test_child_that_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="does not exist"):
        call(edgezo_steps, bundle=str(tmp_path / "x"), steps=1, threads=1, rows=2, tokens=4)


def test_targets_decide_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    met, missed = Target("peak", 240, 250), Target("ratio", 3.9, 4, at_least=True)
    assert print_targets([met]) == 0
    assert print_targets([met, missed]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "MISSED  ratio 3.9 (target >= 4)"


def test_benchmark_without_data_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert missing_data([tmp_path / "train.jsonl"])
    assert capsys.readouterr().out.startswith("skipped: ")


def test_curves_of_a_run(tmp_path: Path) -> None:
    before = {"event": "eval", "split": "valid", "accuracy": 0.5, "seconds": 0.0}
    steps = [{"event": "step", "loss": loss, "elapsed_s": 0.5, "rows": 8} for loss in (1.0, 0.5)]
    after = {"event": "eval", "split": "valid", "accuracy": 0.75, "seconds": 1.0}
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in (before, *steps, after)))
    assert learning.curves(file) == {
        "loss": [(0.5, 1.0), (1.0, 0.75)],
        "accuracy": [(0.0, 0.5), (1.0, 0.75)],
    }


@pytest.mark.slow
def test_step_table(int8: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = step.report(step.compare(int8, folder, rounds=1, steps=1))
    assert [target.value > 0 for target in targets] == [True] * 3
    assert "MeZO float32, last logits" in capsys.readouterr().out


@pytest.fixture(scope="module")
def default_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgezo_export.sources.hub import embedded_default

    try:
        model = embedded_default()
    except EdgezoError as error:
        pytest.skip(str(error))
    bundle = tmp_path_factory.mktemp("default") / "bundle"
    models.export(model, bundle, "int8", "b")
    return bundle


@pytest.mark.slow
def test_tune_two_steps(
    default_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    words = ["awful", "wonderful", "a mess", "a joy"]
    rows = [{"sentence": word, "label": number % 2} for number, word in enumerate(words)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run"
    extra = ["--steps", "2", "--batch-size", "2", "--first-order-lr", "0.001"]
    rows = TaskRows(TASKS["sst2"], file, file)
    receipt = tune(rows, run, seed=1, bundle=default_bundle, extra=extra)
    assert receipt["steps"] == 2
    learning.report({1: receipt})
    assert capsys.readouterr().out.startswith("seed")
    assert len(learning.curves(run / "metrics.jsonl")["loss"]) == 2


@pytest.mark.slow
def test_budget_table(int8: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = budget.run(int8, ["150MB", "8GB"], rounds=1, steps=1)
    targets = budget.report(found)
    assert [target.name for target in targets] == [
        "highest peak in MB with 150MB",
        "highest peak in MB with 8GB",
        "largest error of a prediction in %",
    ]
    assert targets[1].value < 8000
    table = capsys.readouterr().out
    assert "8GB" in table


LARGE = large_bundle.Shape(blocks=2, hidden=64, mlp=160, heads=4, vocab=97)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("large") / "bundle"
    large_bundle.build(bundle, LARGE)
    return bundle


def large_checkpoint(seed: int = 0) -> random_models.RandomCheckpoint:
    return random_models.RandomCheckpoint(dict(export_memory.shapes(LARGE.config())), seed)


def test_random_tensors_are_the_same_however_they_are_cut() -> None:
    checkpoint = large_checkpoint()
    name = "model.layers.1.mlp.down_proj.weight"
    whole = checkpoint.read(name)
    cuts = [0, 7, 16, 17, 50, len(whole)]
    pieces = [checkpoint.read_rows(name, *cut) for cut in pairwise(cuts)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert whole.std() == pytest.approx(random_models.STD, rel=0.05)
    assert not np.array_equal(whole, checkpoint.read(name.replace("1", "0")))
    assert not np.array_equal(whole, large_checkpoint(seed=1).read(name))
    assert set(checkpoint.read("model.norm.weight")) == {1}


@pytest.mark.slow
def test_large_bundle_is_what_a_checkpoint_of_its_weights_gives(
    large: Path, tmp_path: Path
) -> None:
    from edgezo_export.export import export_bundle

    folder, checkpoint = tmp_path / "model", large_checkpoint()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LARGE.config()))
    random_models.write_tokenizer(folder, LARGE.vocab)
    tensors = {name: checkpoint.read(name) for name in checkpoint.names()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    found, expected = Bundle.open(large, verify=True).manifest, tmp_path / "expected"
    assert found.files == export_bundle(str(folder), expected).files
    assert found.graphs == Bundle.open(expected).manifest.graphs


@pytest.mark.slow
def test_seed_of_a_large_bundle(large: Path, tmp_path: Path) -> None:
    manifest = Bundle.open(large).manifest
    assert large_bundle.build(tmp_path / "again", LARGE) == manifest
    other = large_bundle.build(tmp_path / "other", LARGE, seed=1)
    assert other.files[WEIGHTS_FILE].sha256 != manifest.files[WEIGHTS_FILE].sha256


@pytest.mark.slow
def test_large_bundle_has_a_slope(large: Path) -> None:
    batch = Batches(random_rows(ROWS, TOKENS, LARGE.vocab, LABEL_IDS), ROWS, seed=0).batch(0)
    slopes = correlation.projected_grads(large, batch, eps=1e-2, directions=4)
    assert np.isfinite(slopes).all()
    assert np.abs(slopes).min() > 0


@pytest.mark.slow
def test_streaming_table(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budgets = ["150MB", "8GB"]
    warm = streaming.run_warm(large, budgets, rounds=1, steps=1, rows=2, tokens=4)
    targets = streaming.report_warm(warm)
    assert [target.name for target in targets] == [
        "highest peak in MB with 150MB",
        "highest peak in MB with 8GB",
        "largest error of the prediction for 150MB in %",
        "largest error of the prediction for 8GB in %",
        "step time of 150MB over that of 8GB",
    ]
    assert targets[1].is_met
    assert targets[4].value > 0
    streaming.report_cold(warm, warm, rate=1e9)
    table = capsys.readouterr().out
    assert "blocks streamed" in table
    assert "1.00 GB/s" in table


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the kernel of Linux")
def test_streamed_steps_table(
    int8: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight rows are eight parts: one wave reads all blocks there and back, four waves four times
    as much."""
    data = tmp_path / "rows.jsonl"
    row = {"instruction": "a b " * 60, "output": "c d " * 20}
    data.write_text("".join(json.dumps(row) + "\n" for _ in range(8)))
    found = streamed_steps.run(int8, data, ["1B", "2GB"], rounds=1, steps=1, rows=8, tokens=256)
    targets = streamed_steps.report(found)
    assert [target.name for target in targets] == [
        "step time with waves of 1B",
        "step time with waves of 2GB",
    ]
    resident, small, whole = (children[0].result for children in found.values())
    assert resident["read"] == [0]
    assert 4 * whole["read"][0] == small["read"][0]
    assert whole["read"][0] >= 2 * whole["blocks"]
    assert "MB of blocks read" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the kernel of Linux")
def test_cold_steps_read_the_disk(large: Path) -> None:
    file = large / WEIGHTS_FILE
    page_cache.read_through(file)
    assert page_cache.cached_share(file) > 0.9
    try:
        page_cache.evict(file)
    except RuntimeError:
        pytest.skip("the temporary folder is in memory")
    assert page_cache.cached_share(file) < 0.01
    children = streaming.run_cold(large, ["8GB"], steps=2, rows=2, tokens=4)["8GB"]
    size = file.stat().st_size
    assert all(read > size / 2 for read in children[0].result["read"])
    assert page_cache.cached_share(file) > 0.5


@pytest.mark.slow
def test_generation_is_timed_for_everyone(folder: Path, int8: Path, capsys: Any) -> None:
    sizes = {"texts": 2, "prompt": 8, "new": 4}
    kept = generation.keeping(str(int8), **sizes)
    again = generation.recomputing(str(int8), **sizes)
    torch_s = generation.transforming(str(folder), **sizes)
    children = {
        name: Child(result, 100.0, 1.0)
        for name, result in (("edgezo", kept), ("recomputing", again), ("transformers", torch_s))
    }
    targets = generation.report(children, 8)
    assert [target.value > 0 for target in targets] == [True, True]
    assert "tokens/s" in capsys.readouterr().out


@pytest.mark.slow
def test_turns_are_timed_with_and_without_those_before(int8: Path, capsys: Any) -> None:
    found = turns.talking(str(int8), turns=3, more=6, new=4)
    assert [own["prompt"] for own in found["turns"]] == [6, 16, 26]
    assert [own["read"] for own in found["turns"]] == [6, 7, 7]  # the last token was not read
    (target,) = turns.report(Child(found, 100.0, 1.0))
    assert target.value > 0
    assert "tokens, kept" in capsys.readouterr().out
