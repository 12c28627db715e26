"""The benchmarks of forms of weights."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.quantization.group_codes import round_groups
from tests.benchmarks import form_steps, weight_forms
from tests.benchmarks.children import Child
from tests.benchmarks.quantization import Quality


def matrix() -> weight_forms.Float32:
    return np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)


def test_q4_0_is_that_of_llama_cpp() -> None:
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType.Q4_0
    expected = gguf.quants.dequantize(gguf.quants.quantize(matrix(), kind), kind)
    np.testing.assert_allclose(weight_forms.q4_0(matrix()), expected, rtol=1e-6)


def test_rotated_values_are_in_the_basis_of_the_model() -> None:
    plain, rotated = (weight_forms.rounded(matrix(), rotate=rotate) for rotate in (False, True))
    for found in (plain, rotated):
        assert 0 < np.abs(found - matrix()).max() < 0.3
    assert not np.array_equal(plain, rotated)
    codes = round_groups(matrix(), weight_forms.SIZE)
    assert np.array_equal(plain, weight_forms.values_of(codes))


def test_only_layers_are_changed() -> None:
    class Ones:
        def names(self) -> list[str]:
            return ["layer", "norm"]

        def shape(self, name: str) -> tuple[int, ...]:
            return (4, 2)

        def read(self, name: str) -> weight_forms.Float32:
            return np.ones((4, 2), np.float32)

        def read_rows(self, name: str, start: int, stop: int) -> weight_forms.Float32:
            return self.read(name)[start:stop]

    found = weight_forms.Changed(Ones(), lambda name, values: 2 * values, frozenset({"layer"}))
    assert found.names() == ["layer", "norm"]
    assert found.read_rows("layer", 1, 3).tolist() == [[2, 2], [2, 2]]
    assert found.read_rows("norm", 1, 3).tolist() == [[1, 1], [1, 1]]
    assert found.read("norm").shape == found.shape("norm")


def test_the_target_is_a_share_of_q4_0(capsys: pytest.CaptureFixture[str]) -> None:
    margins = np.zeros(3)
    found = {
        form: (10**6, Quality(perplexity, margins, 0.5))
        for form, perplexity in (("fp32", 40.0), ("w4", 43.0), ("q4_0", 50.0))
    }
    (target,) = weight_forms.report(found)
    assert target.value == pytest.approx(0.3)
    assert "+7.50%" in capsys.readouterr().out
    del found["q4_0"]
    assert weight_forms.report(found) == []


def test_steps_are_held_against_plan_and_budget(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"seconds": [0.5, 0.7], "streamed": 0, "plan": {"predicted_bytes": 95_000_000}}
    found = {("two-point", 64, "w4"): [Child(result, 100.0, 1.0)]}
    peak, off = form_steps.report(found, "1GB")
    assert (peak.value, peak.bound) == (100.0, 1000.0)
    assert off.value == pytest.approx(5.0)
    assert "0.600" in capsys.readouterr().out
