"""Coded int8: finite differences keep their precision, and rows do not see each other."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.engine.pair_coding import code_matrices
from tests.export.tiny_models import VOCAB

PAIR = code_matrices((1.0, -1.0))
EPS = 1e-3


def states(case, quant: str, rows: int, tokens: int = 12):
    """Hidden states (rows, tokens, H) before the first block, and context."""
    ids = np.random.default_rng(0).integers(4, VOCAB, (rows, tokens))
    return case.bundle(quant).prologue(ids)


def perturbed(runner, scales, copies: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """theta + scale * z for every scale (groups), each `copies` times with another z."""
    params = {}
    generator = np.random.default_rng(seed)
    for name, value in runner.bundle.trainables().items():
        z = generator.choice([-1.0, 1.0], (copies, *value.shape)).astype(np.float32)
        theta = value + generator.normal(0, 0.1, value.shape).astype(np.float32)
        params[name] = np.concatenate([theta + np.float32(scale) * z for scale in scales])
    return params


def through_blocks(runner, hidden, context, params, code=None) -> np.ndarray:
    matrices = {} if code is None else {"code": code[0], "decode": code[1]}
    for index in range(len(runner.manifest.graphs.blocks)):
        hidden = runner.block(index, hidden, context, params, **matrices)
    return hidden


def test_weights_are_int8(exported):
    runner = exported("llama").bundle("int8")
    assert runner.manifest.quant == "int8"
    sizes = {quant: exported("llama").bundle(quant).bundle.size_bytes for quant in ("int8", "fp32")}
    assert sizes["int8"] < sizes["fp32"]


@pytest.mark.parametrize("quant", ["int8", "w4"])
@pytest.mark.parametrize("groups", [2, 4])
def test_identity_code_changes_no_bit(exported, groups, quant):
    case = exported("llama")
    runner = case.bundle(quant)
    hidden, context = states(case, quant, rows=4)
    params = perturbed(runner, (EPS,))
    eye = np.eye(groups, dtype=np.float32)
    plain = through_blocks(runner, hidden, context, params)
    assert np.array_equal(through_blocks(runner, hidden, context, params, (eye, eye)), plain)


def test_smaller_forms_take_fewer_bytes(exported):
    forms = ("w4", "int8", "w8", "fp16", "fp32")
    sizes = [
        exported("llama").bundle(quant).manifest.files["weights.safetensors"].bytes
        for quant in forms
    ]
    assert sizes == sorted(sizes)
    assert exported("llama").bundle("w4").manifest.group_size == 32
    assert exported("llama").bundle("int8").manifest.group_size is None


@pytest.mark.parametrize(("quant", "bound"), [("w4", 0.35), ("w8", 0.03), ("fp16", 2e-3)])
def test_other_forms_stay_close_to_float(exported, quant, bound):
    """Relative rms after two blocks: 4 bits, 8 bits in groups, 11 bits."""
    case = exported("llama")
    hidden, context = states(case, "fp32", rows=2)
    exact, found = (
        through_blocks(case.bundle(name), hidden, context, {}) for name in ("fp32", quant)
    )
    assert np.sqrt(np.mean((found - exact) ** 2)) < bound * exact.std()


def test_float_blocks_ignore_the_code(exported):
    case = exported("llama")
    runner = case.bundle("fp32")
    hidden, context = states(case, "fp32", rows=4)
    params = perturbed(runner, (EPS, -EPS))
    plain = through_blocks(runner, hidden, context, params)
    assert np.array_equal(through_blocks(runner, hidden, context, params, PAIR), plain)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, -1.0), (0.0, 1.0, 2.0, -1.0), (1.0, 2.0, 3.0)])
def test_outputs_stay_close_to_float(exported, scales):
    case = exported("llama")
    results = {}
    for quant in ("fp32", "int8"):
        runner = case.bundle(quant)
        # the same states for both: what is compared are the blocks
        hidden, context = states(case, "fp32", rows=2)
        params = perturbed(runner, [EPS * scale for scale in scales])
        rows = np.tile(hidden, (len(scales), 1, 1))
        results[quant] = through_blocks(runner, rows, context, params, code_matrices(scales))
    error = results["int8"] - results["fp32"]
    # weights and activations of 8 bits: about half a percent each, over seven layers a block
    assert np.sqrt(np.mean(error**2)) < 0.03 * results["fp32"].std()


def finite_differences(case, code) -> tuple[np.ndarray, np.ndarray]:
    """(y+ - y-) of an antithetic pair: through float32 blocks, and through int8 blocks."""
    hidden, context = states(case, "fp32", rows=4)
    found = []
    for quant, matrices in (("fp32", PAIR), ("int8", code)):
        runner = case.bundle(quant)
        params = perturbed(runner, (EPS, -EPS))
        out = through_blocks(runner, np.tile(hidden, (2, 1, 1)), context, params, matrices)
        found.append(out[:4] - out[4:])
    return found[0], found[1]


@pytest.mark.parametrize(
    "name", ["llama", *(pytest.param(n, marks=pytest.mark.slow) for n in ("gpt2", "gemma3_text"))]
)
def test_only_coded_pairs_keep_a_small_difference(exported, name):
    case = exported(name)

    def correlation(code) -> float:
        exact, found = finite_differences(case, code)
        return float(np.corrcoef(exact.ravel(), found.ravel())[0, 1])

    assert correlation(PAIR) > 0.99
    eye = np.eye(2, dtype=np.float32)
    assert correlation((eye, eye)) < 0.9


@pytest.mark.parametrize("quant", ["int8", "w4", "w8", "fp32"])
@pytest.mark.parametrize("name", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_a_row_has_the_same_bits_in_any_company(exported, name, quant):
    case = exported(name)
    runner = case.bundle(quant)
    hidden, context = states(case, quant, rows=5)
    params = perturbed(runner, (EPS,), copies=5)
    together = through_blocks(runner, hidden, context, params)
    for rows in ([0], [3], [1, 2], [4, 0, 2]):
        own = {key: value[rows] for key, value in params.items()}
        assert np.array_equal(through_blocks(runner, hidden[rows], context, own), together[rows]), (
            rows
        )
    shared = {key: value[:1] for key, value in params.items()}
    together = through_blocks(runner, hidden, context, shared)
    for rows in ([0], [3], [1, 2], [4, 0, 2]):
        assert np.array_equal(
            through_blocks(runner, hidden[rows], context, shared), together[rows]
        ), rows


@pytest.mark.parametrize("quant", ["int8", "w4", "fp32"])
@pytest.mark.parametrize("copies", [1, 5], ids=["shared", "own"])
def test_a_pair_has_the_same_bits_in_any_company(exported, quant, copies):
    case = exported("llama")
    runner = case.bundle(quant)
    hidden, context = states(case, quant, rows=5)
    params = perturbed(runner, (EPS, -EPS), copies)

    def pairs(rows: list[int]) -> np.ndarray:
        """Both sides of the examples `rows`: (2, len(rows), S, H)."""
        own = params
        if copies > 1:
            own = {key: value[rows + [row + 5 for row in rows]] for key, value in params.items()}
        out = through_blocks(runner, np.tile(hidden[rows], (2, 1, 1)), context, own, PAIR)
        return out.reshape(2, len(rows), *out.shape[1:])

    together = pairs([0, 1, 2, 3, 4])
    for rows in ([0], [3], [1, 2], [4, 0, 2]):
        assert np.array_equal(pairs(rows), together[:, rows]), rows
