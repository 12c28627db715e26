"""Gradients through whole graphs, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgezo_export.derivatives import elementwise, indexing, layout, products, reductions
from edgezo_export.derivatives.pull_back import RULES, pull_back
from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder


def test_every_operator_has_one_rule():
    families = (elementwise, indexing, layout, products, reductions)
    assert sum(len(family.RULES) for family in families) == len(RULES)


def test_gradients_of_a_value_that_is_used_twice_are_added():
    draft = GraphBuilder("case")
    x = draft.input("x", ir.DataType.FLOAT, ("rows",))
    y = draft.op("Add", draft.op("Mul", x, x), x)
    (grad,) = pull_back(draft, {y: draft.op("Identity", y)}, [x])
    draft.output(grad, "g", ir.DataType.FLOAT, ("rows",))
    session = onnxruntime.InferenceSession(draft.serialize(), providers=["CPUExecutionProvider"])
    numbers = np.array([1.0, 2.0, -3.0], np.float32)
    expected = (numbers**2 + numbers) * (2 * numbers + 1)
    np.testing.assert_allclose(session.run(None, {"x": numbers})[0], expected)


def test_an_operator_without_a_derivative_is_named():
    draft = GraphBuilder("case")
    x = draft.input("x", ir.DataType.FLOAT, ("rows", 4))
    y = draft.op("Floor", x)
    with pytest.raises(UnsupportedModelError, match="operator Floor has no gradient"):
        pull_back(draft, {y: draft.op("Identity", y)}, [x])


def test_a_target_without_influence_is_refused():
    draft = GraphBuilder("case")
    x, y = (draft.input(name, ir.DataType.FLOAT, ("rows",)) for name in "xy")
    with pytest.raises(UnsupportedModelError, match="depend on 'y'"):
        pull_back(draft, {draft.op("Neg", x): x}, [x, y])
