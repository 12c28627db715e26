"""Vector-Jacobian products of `indexing` against those of torch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgezo_export.derivatives import indexing
from edgezo_export.derivatives.pull_back import pull_back
from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from tests.export.torch_gradients import (
    Build,
    Torch,
    assert_gradients_of_torch,
)

# Every case maps x (2, 3, 4) and y (3, 1), both above zero, to a float32 tensor.
CASES: dict[str, tuple[Build, Torch]] = {
    "Gather": (
        lambda d, x, y: d.op(
            "Gather", d.op("Mul", x, y), d.constant(np.array([1, 0, 1, 1], np.int64)), axis=0
        ),
        lambda x, y: (x * y)[[1, 0, 1, 1]],
    ),
    "Gather of one place": (
        lambda d, x, y: d.op("Gather", d.op("Mul", x, y), d.constant(np.int64(2)), axis=1),
        lambda x, y: (x * y)[:, 2],
    ),
    "GatherElements": (
        lambda d, x, y: d.op(
            "GatherElements",
            d.op("Mul", x, y),
            d.constant(np.tile(np.array([[2], [0], [2]], np.int64), (2, 1, 4))),
            axis=1,
        ),
        lambda x, y: (x * y)[:, [2, 0, 2]],
    ),
    "TopK": (
        lambda d, x, y: d.ops("TopK", 2, d.op("Mul", x, y), d.ints(2), axis=-1)[0],
        lambda x, y: (x * y).topk(2, -1).values,
    ),
    "GatherND in batches": (
        lambda d, x, y: d.op(
            "GatherND",
            d.op("Mul", x, y),
            d.constant(np.array([[[2], [0], [2], [1]], [[1], [1], [1], [0]]], np.int64)),
            batch_dims=1,
        ),
        lambda x, y: torch.stack([(x * y)[0, [2, 0, 2, 1]], (x * y)[1, [1, 1, 1, 0]]]),
    ),
    "GatherND": (
        lambda d, x, y: d.op(
            "GatherND", d.op("Mul", x, y), d.constant(np.array([[1, 2], [0, 0], [1, 2]], np.int64))
        ),
        lambda x, y: (x * y)[[1, 0, 1], [2, 0, 2]],
    ),
}


@pytest.mark.parametrize("known", [True, False], ids=["fixed shapes", "dynamic shapes"])
@pytest.mark.parametrize("case", CASES)
def test_product_is_that_of_torch(case, known):
    assert_gradients_of_torch(*CASES[case], known)


def test_every_rule_is_tested():
    assert {name.split()[0] for name in CASES} == {*indexing.RULES}


@pytest.mark.parametrize(
    ("op", "shape", "attributes", "message"),
    [
        ("Gather", (2,), {"axis": 1}, "inner axis"),
        ("GatherND", (2, 3, 1), {"batch_dims": 2}, "several batch dimensions"),
    ],
)
def test_a_form_without_a_derivative_is_named(op, shape, attributes, message):
    draft = GraphBuilder("case")
    x = draft.input("x", ir.DataType.FLOAT, (2, 3, 4))
    y = draft.op(op, x, draft.constant(np.zeros(shape, np.int64)), **attributes)
    with pytest.raises(UnsupportedModelError, match=message):
        pull_back(draft, {y: draft.op("Identity", y)}, [x])
