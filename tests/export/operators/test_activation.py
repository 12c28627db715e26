"""Activations: fused forms and expansions against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.operators.activation import emit_silu
from edgezo_export.operators.unfused import UNFUSED
from tests.export.torch_gradients import (
    Build,
    F,
    Torch,
    assert_gradients_of_torch,
    numbers,
    values,
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


@pytest.mark.parametrize("case", ["Gelu", "Gelu by tanh"])
def test_the_fused_form_is_that_of_torch(case):
    build, function = CASES[case]
    expected = function(*(torch.tensor(array) for array in numbers())).numpy()
    np.testing.assert_allclose(values(build, {}), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("expand", [{}, UNFUSED], ids=["fused", "expanded"])
def test_silu_is_that_of_torch(expand):
    expected = F.silu(torch.tensor(np.subtract(*numbers()))).numpy()
    found = values(lambda d, x, y: emit_silu(d, d.op("Sub", x, y)), expand)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
