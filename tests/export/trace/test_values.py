"""Numbers of a trace."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.trace.values import constant, fixed_shape, present


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        (ir.AttrInt64s("value_ints", [1, 2]), np.array([1, 2], np.int64)),
        (ir.AttrInt64("value_int", 3), np.int64(3)),
        (ir.AttrFloat32("value_float", 0.5), np.float32(0.5)),
        (ir.AttrTensor("value", ir.tensor(np.eye(2, dtype=np.float32))), np.eye(2)),
    ],
)
def test_constants_of_every_form(attribute, expected):
    node = ir.node("Constant", [], {attribute.name: attribute})
    np.testing.assert_array_equal(constant(node.outputs[0]), expected)


def test_other_values_are_no_constants():
    x = ir.Value(name="x")
    assert constant(None) is None
    assert constant(x) is None
    assert constant(ir.node("Neg", [x]).outputs[0]) is None


def test_an_input_that_is_left_out():
    x = ir.Value(name="x", shape=ir.Shape([2, 3]))
    assert present(x) is x
    assert fixed_shape(x) == (2, 3)
    with pytest.raises(UnsupportedModelError, match="without one of its inputs"):
        present(None)
