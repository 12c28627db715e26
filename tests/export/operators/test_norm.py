"""Norms: fused forms and expansions against torch."""

from __future__ import annotations

import pytest

from tests.export.torch_gradients import (
    Build,
    F,
    Torch,
    assert_gradients_of_torch,
    const,
    tensor,
    uneven,
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
