"""Factors compute what the adapter computes, whatever scale and rank the bundle has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgezo_runtime.adapters.lora_factors import LoraFactors, as_trainables, lora_factors
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.trainables import SchemeInfo
from edgezo_runtime.errors import RunFileError, UsageError
from tests.runtime.small_adapters import LORA, LORA_SHAPES, small_adapter
from tests.runtime.tiny_bundle import TRAINABLES, write_bundle

XS = SchemeInfo("lora-xs", ("q_proj",), 2, 8.0)


def product(factors: LoraFactors) -> np.ndarray:
    return factors.scale * factors.b @ factors.a


def random_factors(rank: int, scale: float, module: str = "layers.1.q") -> LoraFactors:
    generator = np.random.default_rng(rank)
    a, b = (generator.normal(size=s).astype(np.float32) for s in ((rank, 8), (6, rank)))
    return LoraFactors(module, a, b, scale)


def test_factors_are_those_of_the_modules() -> None:
    adapter = small_adapter(LORA, LORA_SHAPES)
    first, second = lora_factors(adapter)
    assert [first.module, second.module] == adapter.modules
    assert (first.rank, first.scale) == (2, 4.0)
    tensors = adapter.tensors
    expected = 4 * tensors[f"{first.module}.lora_B"] @ tensors[f"{first.module}.lora_A"]
    np.testing.assert_array_equal(product(first), expected)


def test_the_middle_of_lora_xs_is_part_of_b() -> None:
    shapes = {"layers.0.q.lora_A": (2, 8), "layers.0.q.lora_B": (6, 2), "layers.0.q.lora_R": (2, 2)}
    adapter = small_adapter(XS, shapes)
    (found,) = lora_factors(adapter)
    a, b, r = (adapter.tensors[f"layers.0.q.lora_{part}"] for part in "ABR")
    np.testing.assert_allclose(product(found), 4 * b @ r @ a, rtol=1e-6)


def test_other_kinds_have_no_factors() -> None:
    with pytest.raises(UsageError, match="ia3 is no product"):
        lora_factors(small_adapter(SchemeInfo("ia3"), {"layers.0.q.input_gain": (8,)}))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """LoRA of rank 2 and scale 8 beside `layers.0.q` and `layers.1.q`."""
    return Bundle.open(write_bundle(tmp_path / "bundle"))


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("scale", [8.0, 3.0])
def test_a_bundle_computes_what_the_factors_do(bundle: Bundle, rank: int, scale: float) -> None:
    factors = random_factors(rank, scale)
    found = as_trainables(bundle, [factors])
    a, b = found["layers.1.q.lora_A"], found["layers.1.q.lora_B"]
    np.testing.assert_allclose(8.0 * b @ a, product(factors), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(a[:rank], factors.a)
    np.testing.assert_array_equal(a[rank:], TRAINABLES["layers.1.q.lora_A"][rank:])
    assert not b[:, rank:].any()
    for name in ("layers.0.q.lora_A", "layers.0.q.lora_B"):
        np.testing.assert_array_equal(found[name], TRAINABLES[name])


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (random_factors(2, 1.0, "layers.1.v"), "adapts no layer 'layers.1.v'.*`targets`.*'v'"),
        (random_factors(3, 1.0), "rank 3, bundle .* has 2; export it with `rank` 3"),
        (
            LoraFactors("layers.1.q", np.zeros((2, 9), np.float32), np.zeros((6, 2)), 1.0),
            "they are of another model",
        ),
    ],
)
def test_factors_that_do_not_fit(bundle: Bundle, factors: LoraFactors, message: str) -> None:
    with pytest.raises(RunFileError, match=message):
        as_trainables(bundle, [factors])
