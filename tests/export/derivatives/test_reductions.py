"""Vector-Jacobian products of `reductions` against those of torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.derivatives import reductions
from tests.export.torch_gradients import (
    Build,
    Torch,
    assert_gradients_of_torch,
)

# Every case maps x (2, 3, 4) and y (3, 1), both above zero, to a float32 tensor.
CASES: dict[str, tuple[Build, Torch]] = {
    "CumSum": (
        lambda d, x, y: d.op("Mul", d.op("CumSum", x, d.constant(np.int64(1))), y),
        lambda x, y: x.cumsum(1) * y,
    ),
    "CumSum without the own number": (
        lambda d, x, y: d.op("Mul", d.op("CumSum", x, d.constant(np.int64(-1)), exclusive=1), y),
        lambda x, y: (x.cumsum(-1) - x) * y,
    ),
    "ReduceMean": (
        lambda d, x, y: d.op("Add", y, d.op("ReduceMean", x, d.ints(-1), keepdims=1)),
        lambda x, y: y + x.mean(-1, keepdim=True),
    ),
    "ReduceSum": (
        lambda d, x, y: d.op("Add", y, d.op("ReduceSum", x, d.ints(0, 2), keepdims=0)),
        lambda x, y: y + x.sum((0, 2)),
    ),
    "Softmax": (
        lambda d, x, y: d.op("Mul", d.op("Softmax", x, axis=-1), y),
        lambda x, y: torch.softmax(x, -1) * y,
    ),
}


@pytest.mark.parametrize("known", [True, False], ids=["fixed shapes", "dynamic shapes"])
@pytest.mark.parametrize("case", CASES)
def test_product_is_that_of_torch(case, known):
    assert_gradients_of_torch(*CASES[case], known)


def test_every_rule_is_tested():
    assert {name.split()[0] for name in CASES} == {*reductions.RULES}
