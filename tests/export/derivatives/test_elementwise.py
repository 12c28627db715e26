"""Vector-Jacobian products of `elementwise` against those of torch."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch

from edgezo_export.derivatives import elementwise
from tests.export.torch_gradients import (
    Build,
    F,
    Torch,
    assert_gradients_of_torch,
    ops,
    unary,
)

# Every case maps x (2, 3, 4) and y (3, 1), both above zero, to a float32 tensor.
CASES: dict[str, tuple[Build, Torch]] = {
    "Abs": (unary("Abs"), lambda x, y: x.abs() * y),
    "Add": (ops("Add"), lambda x, y: x + y),
    "Div": (ops("Div"), lambda x, y: x / y),
    "Div by x": (lambda d, x, y: d.op("Div", y, x), lambda x, y: y / x),
    "Erf": (unary("Erf"), lambda x, y: torch.erf(x) * y),
    "Exp": (unary("Exp"), lambda x, y: torch.exp(x) * y),
    "Mul": (ops("Mul"), lambda x, y: x * y),
    "Neg": (unary("Neg"), lambda x, y: -x * y),
    "Reciprocal": (unary("Reciprocal"), lambda x, y: y / x),
    "Sigmoid": (unary("Sigmoid"), lambda x, y: torch.sigmoid(x) * y),
    "Sqrt": (unary("Sqrt"), lambda x, y: torch.sqrt(x) * y),
    "Sub": (lambda d, x, y: d.op("Sub", y, x), lambda x, y: y - x),
    "Tanh": (unary("Tanh"), lambda x, y: torch.tanh(x) * y),
    "Relu": (
        lambda d, x, y: d.op("Relu", d.op("Sub", x, y)),
        lambda x, y: F.relu(x - y),
    ),
    "Pow": (
        lambda d, x, y: d.op("Add", d.op("Pow", x, d.scalar(3.0)), y),
        lambda x, y: x**3 + y,
    ),
    "Cast": (
        lambda d, x, y: d.op("Mul", d.op("Cast", x, to=int(ir.DataType.FLOAT)), y),
        lambda x, y: x * y,
    ),
    "CastLike": (lambda d, x, y: d.op("Mul", d.op("CastLike", x, y), y), lambda x, y: x * y),
    "Clip": (
        lambda d, x, y: d.op("Mul", d.op("Clip", x, d.scalar(0.7), d.scalar(1.2)), y),
        lambda x, y: x.clamp(0.7, 1.2) * y,
    ),
    "Log": (unary("Log"), lambda x, y: x.log() * y),
    "Max": (ops("Max"), torch.maximum),
    "Min": (ops("Min"), torch.minimum),
    "Softplus": (unary("Softplus"), lambda x, y: F.softplus(x) * y),
    "Identity": (unary("Identity"), lambda x, y: x * y),
    "Where": (
        lambda d, x, y: d.op("Where", d.op("Less", x, d.scalar(1.0)), x, y),
        lambda x, y: torch.where(x < 1, x, y),
    ),
}


@pytest.mark.parametrize("known", [True, False], ids=["fixed shapes", "dynamic shapes"])
@pytest.mark.parametrize("case", CASES)
def test_product_is_that_of_torch(case, known):
    assert_gradients_of_torch(*CASES[case], known)


def test_every_rule_is_tested():
    assert {name.split()[0] for name in CASES} == {*elementwise.RULES}
