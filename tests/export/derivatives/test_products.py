"""Vector-Jacobian products of `products` against those of torch."""

from __future__ import annotations

import pytest

from edgezo_export.derivatives import products
from tests.export.torch_gradients import (
    Build,
    Torch,
    assert_gradients_of_torch,
    const,
    tensor,
)

# Every case maps x (2, 3, 4) and y (3, 1), both above zero, to a float32 tensor.
CASES: dict[str, tuple[Build, Torch]] = {
    "MatMul by a matrix": (
        lambda d, x, y: d.op("MatMul", d.op("Mul", x, y), const(d, 4, 5)),
        lambda x, y: (x * y) @ tensor(4, 5),
    ),
    "MatMul of a matrix": (
        lambda d, x, y: d.op("MatMul", d.op("Transpose", x, perm=[0, 2, 1]), y),
        lambda x, y: x.transpose(1, 2) @ y,
    ),
    "MatMul of both": (
        lambda d, x, y: d.op("MatMul", x, d.op("Transpose", d.op("Mul", x, y), perm=[0, 2, 1])),
        lambda x, y: x @ (x * y).transpose(1, 2),
    ),
    "Gemm": (
        lambda d, x, y: d.op(
            "Gemm", d.op("Reshape", d.op("Mul", x, y), d.ints(6, 4)), const(d, 5, 4), transB=1
        ),
        lambda x, y: (x * y).reshape(6, 4) @ tensor(5, 4).T,
    ),
}


@pytest.mark.parametrize("known", [True, False], ids=["fixed shapes", "dynamic shapes"])
@pytest.mark.parametrize("case", CASES)
def test_product_is_that_of_torch(case, known):
    assert_gradients_of_torch(*CASES[case], known)


def test_every_rule_is_tested():
    assert {name.split()[0] for name in CASES} == {*products.RULES}
