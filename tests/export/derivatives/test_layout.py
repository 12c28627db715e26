"""Vector-Jacobian products of `layout` against those of torch."""

from __future__ import annotations

import pytest
import torch

from edgezo_export.derivatives import layout
from tests.export.torch_gradients import (
    Build,
    F,
    Torch,
    assert_gradients_of_torch,
    const,
    tensor,
)

# Every case maps x (2, 3, 4) and y (3, 1), both above zero, to a float32 tensor.
CASES: dict[str, tuple[Build, Torch]] = {
    "Concat": (
        lambda d, x, y: d.op("Concat", x, d.op("Mul", x, y), const(d, 2, 3, 2), axis=-1),
        lambda x, y: torch.cat([x, x * y, tensor(2, 3, 2)], -1),
    ),
    "Split": (
        lambda d, x, y: d.op("Mul", d.ops("Split", 2, x, d.ints(1, 3), axis=-1)[1], y),
        lambda x, y: x[..., 1:] * y,
    ),
    "Slice": (
        lambda d, x, y: d.op("Mul", d.op("Slice", x, d.ints(-3), d.ints(99), d.ints(-1)), y),
        lambda x, y: x[..., 1:] * y,
    ),
    "Slice in steps": (
        lambda d, x, y: d.op(
            "Mul", d.op("Slice", x, d.ints(1), d.ints(99), d.ints(-1), d.ints(2)), y
        ),
        lambda x, y: x[..., 1::2] * y,
    ),
    "Pad": (
        lambda d, x, y: d.op("Mul", d.op("Pad", x, d.ints(0, 0, 1, 0, 0, 2)), y),
        lambda x, y: F.pad(x, (1, 2)) * y,
    ),
    "Expand": (
        lambda d, x, y: d.op("Mul", d.op("Expand", y, d.ints(2, 3, 4)), x),
        lambda x, y: y.expand(2, 3, 4) * x,
    ),
    "Reshape": (
        lambda d, x, y: d.op("Mul", d.op("Reshape", x, d.ints(-1, 3, 1)), y),
        lambda x, y: x.reshape(-1, 3, 1) * y,
    ),
    "Tile": (
        lambda d, x, y: d.op("Mul", d.op("Tile", x, d.ints(2, 1, 3)), y),
        lambda x, y: x.repeat(2, 1, 3) * y,
    ),
    "Transpose": (
        lambda d, x, y: d.op("Mul", d.op("Transpose", x, perm=[2, 1, 0]), y),
        lambda x, y: x.permute(2, 1, 0) * y,
    ),
    "Squeeze": (
        lambda d, x, y: d.op("Mul", x, d.op("Unsqueeze", d.op("Squeeze", y), d.ints(1))),
        lambda x, y: x * y,
    ),
    "Unsqueeze": (
        lambda d, x, y: d.op("Mul", d.op("Unsqueeze", x, d.ints(0)), y),
        lambda x, y: x[None] * y,
    ),
}


@pytest.mark.parametrize("known", [True, False], ids=["fixed shapes", "dynamic shapes"])
@pytest.mark.parametrize("case", CASES)
def test_product_is_that_of_torch(case, known):
    assert_gradients_of_torch(*CASES[case], known)


def test_every_rule_is_tested():
    assert {name.split()[0] for name in CASES} == {*layout.RULES}
