"""Norms: fused forms and expansions against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.operators.norm import emit_rms_norm
from edgezo_export.operators.unfused import UNFUSED
from tests.export.torch_gradients import (
    Build,
    F,
    Torch,
    assert_gradients_of_torch,
    const,
    numbers,
    tensor,
    uneven,
    values,
)

# Every case maps x (2, 3, 4) and y (3, 1), both above zero, to a float32 tensor.
CASES: dict[str, tuple[Build, Torch]] = {
    "LayerNormalization": (
        lambda d, x, y: d.op(
            "LayerNormalization", uneven(d, x, y), const(d, 4), const(d, 4), axis=-1
        ),
        lambda x, y: F.layer_norm(x * y + tensor(4), (4,), tensor(4), tensor(4)),
    ),
    "SimplifiedLayerNormalization": (
        lambda d, x, y: d.op(
            "SimplifiedLayerNormalization", uneven(d, x, y), const(d, 4), axis=-1, epsilon=1e-5
        ),
        lambda x, y: F.rms_norm(x * y + tensor(4), (4,), tensor(4), 1e-5),
    ),
}


@pytest.mark.parametrize("known", [True, False], ids=["fixed shapes", "dynamic shapes"])
@pytest.mark.parametrize("case", CASES)
def test_gradient_of_the_expansion_is_that_of_torch(case, known):
    assert_gradients_of_torch(*CASES[case], known)


@pytest.mark.parametrize("case", CASES)
def test_the_fused_form_is_that_of_torch(case):
    build, function = CASES[case]
    expected = function(*(torch.tensor(array) for array in numbers())).numpy()
    np.testing.assert_allclose(values(build, {}), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("expand", [{}, UNFUSED], ids=["fused", "expanded"])
def test_rms_norm_is_that_of_torch(expand):
    x, y = (torch.tensor(array) for array in numbers())
    expected = F.rms_norm(x * y, (4,), tensor(4), 1e-3).numpy()
    found = values(lambda d, x, y: emit_rms_norm(d, d.op("Mul", x, y), const(d, 4), 1e-3), expand)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
