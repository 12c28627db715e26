"""Activations: fused forms and expansions against torch."""

from __future__ import annotations

import pytest

from tests.export.torch_gradients import (
    Build,
    F,
    Torch,
    assert_gradients_of_torch,
)

# Every case maps x (2, 3, 4) and y (3, 1), both above zero, to a float32 tensor.
CASES: dict[str, tuple[Build, Torch]] = {
    "Gelu": (lambda d, x, y: d.op("Gelu", d.op("Sub", x, y)), lambda x, y: F.gelu(x - y)),
    "Gelu by tanh": (
        lambda d, x, y: d.op("Gelu", d.op("Sub", x, y), approximate="tanh"),
        lambda x, y: F.gelu(x - y, approximate="tanh"),
    ),
    "QuickGelu": (
        lambda d, x, y: d.op("QuickGelu", d.op("Sub", x, y), alpha=1.0),
        lambda x, y: F.silu(x - y),
    ),
}


@pytest.mark.parametrize("known", [True, False], ids=["fixed shapes", "dynamic shapes"])
@pytest.mark.parametrize("case", CASES)
def test_gradient_of_the_expansion_is_that_of_torch(case, known):
    assert_gradients_of_torch(*CASES[case], known)
