"""Every architecture, one tiny bundle each: blocks, gradients, texts, tuning and adapters.

The reference is transformers; float64 where gradients are compared.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings

import numpy as np
import pytest

from edgezo_runtime.adapters.adapter import make_adapter
from edgezo_runtime.adapters.peft_reader import read_peft, start_from_peft
from edgezo_runtime.adapters.peft_writer import save_peft
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.engine.pair_coding import code_matrices
from edgezo_runtime.generation.generator import GenerationConfig
from edgezo_runtime.methods.estimators import Probe
from edgezo_runtime.noise import noise
from tests.models.rows import ROWS
from tests.runtime.dense_directions import dense_params, trained_blocks
from tests.runtime.tiny_sets import random_set
from tests.runtime.written_texts import moved, prompts_of, writer

torch = pytest.importorskip("torch", reason="compares with torch")

SIZES = (2, 5, 9, 21, 1, 13, 16, 17)
EPS = 1e-3
NEW = 12
FAST = ("llama", "gpt2", "roberta")
NAMES = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ROWS]


@pytest.mark.parametrize("name", NAMES)
def test_architecture(exported, tmp_path, name):
    case = exported(name)
    check_blocks(case)
    check_scores(case)
    check_merged_adapters(case)
    check_gradients(case)
    graphs = case.bundle("fp32").manifest.graphs
    assert ROWS[name].writes is not case.kind.encoder
    if not case.kind.encoder:
        assert graphs.continues is ROWS[name].cached
        check_texts(case)
    check_tuning(case, tmp_path / "run")
    check_peft(case, tmp_path)


def check_blocks(case) -> None:
    """The hidden states before and after every block."""
    from tests.export.block_parity import assert_close, bundle_mask, inputs, torch_states

    ids, mask = inputs(case)
    expected, _ = torch_states(case, ids, mask)
    found = list(case.bundle("fp32").hidden_states(ids, bundle_mask(case, mask)))
    assert len(found) == len(expected) == 3
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours[mask == 1], theirs[mask == 1])


def check_scores(case) -> None:
    """Label words and log-probabilities."""
    from tests.export.block_parity import LENGTHS, assert_close, bundle_mask, inputs, torch_states
    from tests.export.tiny_models import VOCAB

    runner = case.bundle("fp32")
    ids, mask = inputs(case)
    *_, hidden = runner.hidden_states(ids, bundle_mask(case, mask))
    _, logits = torch_states(case, ids, mask)
    positions = np.array([*enumerate(length - 1 for length in LENGTHS), (0, 3), (2, 7)])
    labels, targets = np.array([5, 9, VOCAB - 1]), np.arange(len(positions)) * 13
    if case.kind.classes:  # of the first token of a row
        positions, labels, targets = positions * [1, 0], np.array([2, 0]), targets % 3
    chosen = chosen_logits(logits, positions)
    assert_close(runner.label_logits(hidden, positions, labels), chosen[:, labels])
    log_probs = torch.log_softmax(torch.tensor(chosen), -1).numpy()
    expected = log_probs[np.arange(len(positions)), targets]
    assert_close(runner.log_probs(hidden, positions, targets), expected)


def chosen_logits(logits: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Those of rows (T, C) with a classification head, or of tokens (T, V)."""
    own = logits[positions[:, 0]]
    return own if own.ndim == 2 else own[np.arange(len(own)), positions[:, 1]]


def rows_of(case, kind: str, sizes) -> ExampleSet:
    """Random rows; with a classification head each is scored at its first token."""
    pad = case.bundle("fp32").manifest.tokenizer.pad_id
    if not case.kind.classes:
        return random_set(kind, sizes, pad)
    found = random_set(kind, sizes, pad, labels=((0,), (1,), (2,)))
    first = np.zeros(1, np.int32)
    examples = tuple(dataclasses.replace(example, places=first) for example in found)
    return dataclasses.replace(found, examples=examples)


def check_merged_adapters(case) -> None:
    """Adapters that every row has its own copy of, against merged weights."""
    from tests.export.block_parity import LENGTHS, assert_close, bundle_mask, inputs, merged_states

    runner = case.bundle("fp32")
    ids, mask = inputs(case)
    generator = np.random.default_rng(1)
    params = {
        info.name: generator.normal(0, 0.2, (2, *info.shape)).astype(np.float32)
        for info in runner.manifest.trainables
    }
    found = list(runner.hidden_states(ids, bundle_mask(case, mask), params))
    rows = len(LENGTHS) // 2
    for number in range(2):
        own = slice(number * rows, (number + 1) * rows)
        values = {key: value[number] for key, value in params.items()}
        expected = merged_states(case, ids, mask, values)
        for ours, theirs in zip(found, expected, strict=True):
            assert_close(ours[own][mask[own] == 1], theirs[own][mask[own] == 1])


def check_gradients(case) -> None:
    """First-order gradients, and the slope that a pair of losses gives."""
    from tests.runtime.torch_lora import TorchLora

    bundle = case.bundle("fp32").bundle
    theta = moved(bundle)
    attention = "sdpa" if case.kind.encoder else "eager"
    reference = TorchLora(case.model, bundle, attention)
    for kind in ("labels",) if case.kind.encoder else ("labels", "completion"):
        examples = rows_of(case, kind, SIZES)
        batch = make_batch(examples, range(len(SIZES)))
        engine = Engine(bundle, threads=1)
        found = FirstOrderGradient(engine, 0).gradient(batch, theta)
        loss, expected = reference.gradient(theta, batch)
        assert found.losses.mean() == pytest.approx(loss, abs=1e-5)
        assert set(found.gradients) == {i.name for i in bundle.manifest.trainables if i.trains}
        for name, grad in found.gradients.items():
            assert np.abs(grad - expected[name]).max() <= 5e-5 * np.abs(expected[name]).max(), name
        check_slopes(bundle, engine, theta, batch, reference)


def check_slopes(bundle, engine, theta, batch, reference) -> None:
    """(L(theta + eps z) - L(theta - eps z)) / (2 eps), here and in torch.

    The differences of torch are those of the same two points: an expert may be another one there.
    """
    active = trained_blocks(bundle)
    found, expected = [], []
    for seed in range(3):
        probes = [Probe(seed, EPS, False), Probe(seed, -EPS, False)]
        params = dense_params(theta, active, probes, batch.row_example)
        scores = engine.score(batch, params, code_matrices([EPS, -EPS]))
        above, below = example_losses(batch, scores).mean(axis=1)
        found.append((above - below) / (2 * EPS))
        draws = {
            name: noise(seed, name, theta[name].shape, kind="rademacher", row=0) for name in active
        }
        sides = []
        for scale in (EPS, -EPS):
            values = {n: v + scale * draws[n] if n in draws else v for n, v in theta.items()}
            with torch.no_grad():
                sides.append(float(reference.losses(reference.tensors(values), batch).mean()))
        expected.append((sides[0] - sides[1]) / (2 * EPS))
    error = np.subtract(found, expected)
    assert np.sqrt(np.mean(error**2)) <= 0.02 * np.sqrt(np.mean(np.square(expected)))


def check_texts(case) -> None:
    """Greedy tokens."""
    bundle = case.bundle("fp32").bundle
    prompts = prompts_of((5, 1, 13))
    found = writer(bundle).generate(prompts, bundle.trainables(), GenerationConfig(NEW))
    for text, prompt in zip(found, prompts, strict=True):
        tokens = list(prompt)
        with torch.inference_mode():
            while len(tokens) < len(prompt) + NEW:
                ids = torch.tensor([tokens])
                logits = case.model(input_ids=ids, use_cache=False).logits[0, -1]
                tokens.append(int(logits.argmax()))
                if tokens[-1] in bundle.manifest.tokenizer.eos_ids:
                    tokens.pop()
                    break
        assert text.tokens == tokens[len(prompt) :]


def check_tuning(case, folder) -> None:
    """A few steps, estimates in the first block and gradients in the last one, lower the loss."""
    bundle = case.bundle("fp32").bundle
    examples = rows_of(case, "labels", (4, 7, 5, 3, 6, 4, 8, 5))
    config = TuneConfig(
        steps=8, max_time_s=0, batch_size=8, lr=0.03, eps=0.01, blocks="all", first_order=1,
        first_order_lr=0.05,
    )  # fmt: skip
    with Tuner.open(bundle, examples, config, folder) as tuner:
        before = tuner.evaluate(examples).loss
        list(tuner)
        assert tuner.evaluate(examples).loss < before - 0.03


def check_peft(case, folder) -> None:
    """An adapter in PEFT's format: PEFT computes the same with it, and it comes back."""
    peft = pytest.importorskip("peft")
    from tests.export.block_parity import LENGTHS, bundle_mask, inputs

    runner = case.bundle("fp32")
    bundle, theta = runner.bundle, moved(runner.bundle)
    adapter = make_adapter(
        folder / "adapter.safetensors", bundle, theta, steps=1, created_by="test", scope="all"
    )
    save_peft(adapter, folder / "peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers and configs that PEFT guesses at
        model = peft.PeftModel.from_pretrained(copy.deepcopy(case.model), folder / "peft").eval()
    ids, mask = inputs(case)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits
    params = {name: value[None] for name, value in theta.items()}
    *_, hidden = runner.hidden_states(ids, bundle_mask(case, mask), params)
    positions, labels = np.array([*enumerate(length - 1 for length in LENGTHS)]), np.arange(5, 40)
    if case.kind.classes:
        positions, labels = positions * [1, 0], np.arange(3)
    expected = chosen_logits(logits.numpy(), positions)[:, labels]
    found = runner.label_logits(hidden, positions, labels)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    back = start_from_peft(
        read_peft(folder / "peft"), bundle, folder / "back.safetensors", created_by="test"
    )
    for name, value in adapter.tensors.items():
        np.testing.assert_array_equal(back.tensors[name], value)
