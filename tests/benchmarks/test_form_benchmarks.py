"""The benchmarks of forms of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgezo_export.quantization.group_codes import round_groups
from edgezo_export.quantization.weights_plan import PlannedTensor
from edgezo_runtime.data.batches import Batches
from edgezo_runtime.data.random_rows import random_rows
from tests.benchmarks import (
    correlation,
    form_steps,
    half_activations,
    rounded_layers,
    weight_forms,
)
from tests.benchmarks.children import Child
from tests.benchmarks.edgezo_loop import LABEL_IDS
from tests.bundles.tiny import tiny_bundle


def matrix() -> rounded_layers.Float32:
    return np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)


def test_q4_0_is_that_of_llama_cpp() -> None:
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType.Q4_0
    expected = gguf.quants.dequantize(gguf.quants.quantize(matrix(), kind), kind)
    np.testing.assert_allclose(rounded_layers.q4_0(matrix()), expected, rtol=1e-6)


def test_rotated_values_are_in_the_basis_of_the_model() -> None:
    plain, rotated = (rounded_layers.rounded(matrix(), 32, rotate=turn) for turn in (False, True))
    for found in (plain, rotated):
        assert 0 < np.abs(found - matrix()).max() < 0.3
    assert not np.array_equal(plain, rotated)
    codes = round_groups(matrix(), 32)
    assert np.array_equal(plain, codes.values())


class _Source:
    """Two layers of 16 outputs."""

    def read(self, name: str) -> rounded_layers.Float32:
        return np.full((2, 16), 1 if name == "q" else 2, np.float32)


def test_layers_are_replaced_in_a_bundle(
    tmp_path: Path,
) -> None:
    """Joined matrices, (in, out), at their place in the file; other tensors stay."""
    tensors = {"m.qk.weight": np.zeros((16, 4), np.float32), "norm": np.ones(16, np.float32)}
    save_file(tensors, tmp_path / "weights.safetensors")
    layers = object.__new__(rounded_layers.Layers)
    layers.source = _Source()  # type: ignore[assignment]
    sources = ("q", "k")
    layers.entries = [PlannedTensor("m.qk.weight", "U8", (4, 8), sources, "linear_int4", True)]
    layers.write_values(tmp_path / "weights.safetensors", lambda name, values: values + 0.5)
    found = load_file(tmp_path / "weights.safetensors")
    assert found["m.qk.weight"].tolist() == [[1.5, 1.5, 2.5, 2.5]] * 16
    assert found["norm"].tolist() == [1.0] * 16


def test_the_target_is_a_share_of_q4_0(capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        form: {
            "bytes": 10**6,
            "perplexity": perplexity,
            "margins": [0.0] * 3,
            "accuracy": 0.5,
            "grads": None if form == "q4_0" else [1.0, 2.0, 3.0 + shift],
        }
        for form, perplexity, shift in (("fp32", 40.0, 0), ("w4", 43.0, 1), ("q4_0", 50.0, 0))
    }
    share, agrees = weight_forms.report(found)
    assert share.value == pytest.approx(0.3)
    expected = np.corrcoef([1, 2, 3], [1, 2, 4])[0, 1]
    assert agrees.value == pytest.approx(expected)
    assert "+7.50%" in capsys.readouterr().out
    del found["q4_0"], found["w4"]
    assert weight_forms.report(found) == []


def test_steps_are_held_against_plan_and_budget(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"seconds": [0.5, 0.7], "streamed": 0, "plan": {"predicted_bytes": 95_000_000}}
    found = {("two-point", 64, "w4"): [Child(result, 100.0, 1.0)]}
    peak, off = form_steps.report(found, "1GB")
    assert (peak.value, peak.bound) == (100.0, 1000.0)
    assert off.value == pytest.approx(5.0)
    assert "0.600" in capsys.readouterr().out


@pytest.mark.slow
def test_the_code_keeps_pairs_apart_in_float16(tmp_path: Path) -> None:
    """At 1e-3 a pair differs by less than a step of float16. States in it lose what codes keep."""
    fp32 = tiny_bundle("llama", "fp32")
    batch = Batches(random_rows(4, 9, 97, LABEL_IDS), 4, seed=0).batch(0)
    exact = correlation.projected_grads(fp32, batch, 1e-3, 12)
    lost: dict[str, float] = {}
    for everywhere in (False, True):
        folder = tmp_path / f"half-{everywhere}"
        half_activations.round_activations(fp32, folder, everywhere=everywhere)
        for coded in (False, True):
            found = correlation.projected_grads(folder, batch, 1e-3, 12, coded=coded)
            lost[f"{everywhere} {coded}"] = 1 - correlation.correlation(found, exact)
    assert lost["False True"] < 1e-3 < lost["False False"] < 0.2
    assert lost["True True"] == lost["True False"] > 1e-3
