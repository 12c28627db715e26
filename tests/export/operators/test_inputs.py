"""Inputs of operators that are expanded."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.operators.inputs import given


def test_an_input_that_is_left_out_is_named():
    x = ir.Value(name="x")
    assert given((None, x), 1) is x
    for index in (0, 2):
        with pytest.raises(UnsupportedModelError, match=f"without its input {index}"):
            given((None, x), index)
