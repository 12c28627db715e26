"""Every graph of a float32 bundle against torch.

All is float32 on both sides: what differs is the order of sums, some 1e-7 of the largest value.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.pytorch_utils import Conv1D

from edgezo_export.derivatives import backward_graphs as backward
from edgezo_export.export import ExportConfig, export_bundle
from edgezo_export.graphs import token_scorer
from tests.export.bundle_runner import BundleRunner
from tests.export.tiny_models import LONGEST, TINY, VOCAB

TOLERANCE = 1e-4
# One family of each sort runs every time: rotary and RMS norm, (in, out) matrices, an encoder.
FAST = {"llama", "gpt2", "roberta"}
FAMILIES = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in TINY]
LENGTHS = (LONGEST, 13, 20, 2)


def inputs(case) -> tuple[np.ndarray, np.ndarray]:
    """Right padded ids (4, S) and mask, 1 where there is a token."""
    ids = np.random.default_rng(0).integers(4, VOCAB, (len(LENGTHS), LONGEST))
    mask = (np.arange(LONGEST) < np.array(LENGTHS)[:, None]).astype(np.int64)
    ids[mask == 0] = case.model.config.pad_token_id or 0
    return ids, mask


def torch_states(case, ids, mask) -> tuple[list[np.ndarray], np.ndarray]:
    """Input of the first layer, output of every layer; logits."""
    states: list[np.ndarray] = []
    layers = case.model.get_submodule(case.kind.layers)

    def keep(value) -> None:
        states.append((value if isinstance(value, torch.Tensor) else value[0]).numpy().copy())

    def before(_module, args, kwargs) -> None:
        keep(args[0] if args else kwargs["hidden_states"])

    hooks = [layers[0].register_forward_pre_hook(before, with_kwargs=True)]
    hooks += [layer.register_forward_hook(lambda _m, _a, out: keep(out)) for layer in layers]
    try:
        with torch.inference_mode():
            out = case.model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))
    finally:
        for hook in hooks:
            hook.remove()
    return states, out.logits.numpy()


def bundle_mask(case, mask) -> np.ndarray | None:
    return mask if case.kind.encoder else None


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_hidden_state(exported, name):
    case = exported(name)
    ids, mask = inputs(case)
    expected, _ = torch_states(case, ids, mask)
    found = list(case.bundle("fp32").hidden_states(ids, bundle_mask(case, mask)))
    assert len(found) == len(expected) == 3
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours[mask == 1], theirs[mask == 1])


@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("name", ["llama", "gpt2", "roberta"])
def test_one_row_of_few_tokens(exported, name, tokens):
    case = exported(name)
    ids, mask = (array[:1, :tokens] for array in inputs(case))
    expected, _ = torch_states(case, ids, mask)
    found = list(case.bundle("fp32").hidden_states(ids, bundle_mask(case, mask)))
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("name", FAMILIES)
def test_scores(exported, name):
    case = exported(name)
    runner = case.bundle("fp32")
    ids, mask = inputs(case)
    *_, hidden = runner.hidden_states(ids, bundle_mask(case, mask))
    _, logits = torch_states(case, ids, mask)
    positions = np.array([*enumerate(length - 1 for length in LENGTHS), (0, 3), (2, 7)])
    chosen = logits[positions[:, 0], positions[:, 1]]
    labels = np.array([5, 9, VOCAB - 1])
    assert_close(runner.label_logits(hidden, positions, labels), chosen[:, labels])
    targets = np.arange(len(positions)) * 13
    log_probs = torch.log_softmax(torch.tensor(chosen), -1).numpy()
    expected = log_probs[np.arange(len(positions)), targets]
    assert_close(runner.log_probs(hidden, positions, targets), expected)


def merged_states(case, ids, mask, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """States of torch's model with W + alpha / rank * B A in place of W."""
    scheme = case.bundle("fp32").manifest.scheme
    modules = {name.rpartition(".")[0] for name in values}
    weights = {module: case.model.get_submodule(module).weight for module in modules}
    original = {module: weight.detach().clone() for module, weight in weights.items()}
    try:
        with torch.no_grad():
            for module, weight in weights.items():
                a, b = (torch.tensor(values[f"{module}.lora_{role}"]) for role in "AB")
                delta = scheme.alpha / scheme.rank * (b @ a)
                is_conv = isinstance(case.model.get_submodule(module), Conv1D)  # (in, out)
                weight += delta.T if is_conv else delta
        return torch_states(case, ids, mask)[0]
    finally:
        with torch.no_grad():
            for module, weight in weights.items():
                weight.copy_(original[module])


@pytest.mark.parametrize("copies", [1, 2, 4], ids=["shared", "per-group", "per-row"])
@pytest.mark.parametrize("name", FAMILIES)
def test_adapters_against_merged_weights(exported, name, copies):
    case = exported(name)
    runner = case.bundle("fp32")
    ids, mask = inputs(case)
    generator = np.random.default_rng(1)
    params = {
        info.name: generator.normal(0, 0.2, (copies, *info.shape)).astype(np.float32)
        for info in runner.manifest.trainables
    }
    found = list(runner.hidden_states(ids, bundle_mask(case, mask), params))
    plain, _ = torch_states(case, ids, mask)
    rows = len(LENGTHS) // copies
    for copy in range(copies):
        own = slice(copy * rows, (copy + 1) * rows)
        values = {key: value[copy] for key, value in params.items()}
        expected = merged_states(case, ids, mask, values)
        for ours, theirs in zip(found, expected, strict=True):
            assert_close(ours[own][mask[own] == 1], theirs[own][mask[own] == 1])
        assert np.abs(expected[-1] - plain[-1]).max() > 0.05  # the adapters do something


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quant", "chunk", "tolerance"),
    # 97 tokens: three whole chunks and seven tokens, or all in one chunk, whose scales then come
    # in two shapes. int8: a weight is off by up to 1/254 of the largest of its row
    [
        ("fp32", 30, 1e-5),
        pytest.param("int8", 30, 0.15, marks=pytest.mark.slow),
        pytest.param("int8", 4096, 0.15, marks=pytest.mark.slow),
    ],
)
def test_log_probs_of_a_vocabulary_in_chunks(
    exported, tmp_path, monkeypatch, quant, chunk, tolerance
):
    for module in (token_scorer, backward):
        monkeypatch.setattr(module, "CHUNK", chunk)
    case = exported("llama")
    hidden = np.random.default_rng(2).normal(0, 3, (2, 5, case.model.config.hidden_size))
    hidden = hidden.astype(np.float32)
    positions = np.array([(row, token) for row in range(2) for token in range(5)])
    targets = np.array([0, 29, 30, 59, 60, 89, 90, 96, 45, 7])
    with torch.inference_mode():
        states = case.model.model.norm(torch.tensor(hidden))
        logits = torch.log_softmax(case.model.lm_head(states), -1).reshape(10, VOCAB).numpy()
    export_bundle(str(case.folder), tmp_path / quant, ExportConfig(quant=quant))
    found = BundleRunner(tmp_path / quant).log_probs(hidden, positions, targets)
    np.testing.assert_allclose(found, logits[np.arange(10), targets], atol=tolerance)
