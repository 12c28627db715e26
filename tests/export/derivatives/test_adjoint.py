"""A node on the way back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgezo_export.derivatives.adjoint import Adjoint
from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder


def adjoint(draft: GraphBuilder, result: ir.Value, *wanted: bool) -> Adjoint:
    """The node that makes a value, with the value itself as its gradient."""
    node = result.producer()
    assert node is not None
    return Adjoint(draft, node, [result], wanted, draft.shapes())


def test_constants_are_found_behind_nodes_that_keep_numbers():
    draft = GraphBuilder("case")
    x = draft.input("x", ir.DataType.FLOAT, (2, 3))
    shape = draft.op("Identity", draft.op("Unsqueeze", draft.constant(np.int64(6)), draft.ints(0)))
    own = adjoint(draft, draft.op("Reshape", x, shape), True, False)
    assert own.constant(1) == [6]
    with pytest.raises(UnsupportedModelError, match="Reshape by numbers not fixed"):
        own.constant(0)


def test_an_input_that_is_left_out_is_named():
    draft = GraphBuilder("case")
    x = draft.input("x", ir.DataType.FLOAT, (2, 3))
    own = adjoint(draft, draft.op("Neg", x), True)
    assert own.input(0) is x
    with pytest.raises(UnsupportedModelError, match="Neg without its input 1"):
        own.input(1)
    assert own.attribute("axis", 3) == 3


@pytest.mark.parametrize(("shape", "summed"), [((2, 3), False), ((3,), True), ((2, 1), True)])
def test_gradients_are_summed_where_an_input_was_repeated(shape, summed):
    draft = GraphBuilder("case")
    x = draft.input("x", ir.DataType.FLOAT, (2, 3))
    y = draft.input("y", ir.DataType.FLOAT, shape)
    own = adjoint(draft, draft.op("Add", x, y), True, True)
    assert (own.reduced(own.grad, 1) is not own.grad) is summed


def test_graphs_for_gpus_know_what_was_repeated_without_looking_at_shapes():
    draft = GraphBuilder("case", gpu=True)
    x = draft.input("x", ir.DataType.FLOAT, ("rows", "tokens", 4))
    y = draft.input("y", ir.DataType.FLOAT, ("copies_bias", 1, 4))
    own = adjoint(draft, draft.op("Add", x, y), True, True)
    assert own.reduced(own.grad, 0) is own.grad
    summed = own.reduced(own.grad, 1).producer()
    assert summed is not None
    assert summed.op_type == "ReduceSum"
    assert summed.inputs[1].const_value.numpy().tolist() == [0, 1]


def test_graphs_for_gpus_are_refused_where_a_shape_is_not_known():
    draft = GraphBuilder("case", gpu=True)
    x = draft.input("x", ir.DataType.FLOAT, ("rows", 4))
    shape = draft.input("shape", ir.DataType.INT64, (2,))
    own = adjoint(draft, draft.op("Add", draft.op("Reshape", x, shape), x), True, True)
    with pytest.raises(UnsupportedModelError, match="Add of unknown shape"):
        own.reduced(own.grad, 0)


def test_a_node_of_several_outputs_has_no_single_gradient():
    draft = GraphBuilder("case")
    x = draft.input("x", ir.DataType.FLOAT, (2, 3))
    parts = draft.ops("Split", 2, x, draft.ints(1, 2), axis=1)
    node = parts[0].producer()
    with pytest.raises(UnsupportedModelError, match="several outputs of Split"):
        _ = Adjoint(draft, node, list(parts), [True], draft.shapes()).grad


def test_graphs_for_gpus_know_that_a_single_row_was_repeated_and_not_what_it_meets():
    """Of a number of rows that is known only at run time."""
    draft = GraphBuilder("case", gpu=True)
    x = draft.input("x", ir.DataType.FLOAT, ("rows", 4))
    shape = draft.input("shape", ir.DataType.INT64, (2,))
    gain = draft.input("gain", ir.DataType.FLOAT, (4,))
    own = adjoint(draft, draft.op("Mul", draft.op("Reshape", x, shape), gain), True, True)
    with pytest.raises(UnsupportedModelError, match="Mul of unknown shape"):
        own.reduced(own.grad, 0)  # it may have one column, which was repeated
    wide = draft.op("Concat", draft.op("Reshape", x, shape), x, axis=0)  # its columns are known
    own = adjoint(draft, draft.op("Mul", wide, gain), True, True)
    assert own.reduced(own.grad, 0) is own.grad
    summed = own.reduced(own.grad, 1).producer()
    assert summed is not None
    assert summed.op_type == "Reshape"
    assert summed.inputs[0].producer().inputs[1].const_value.numpy().tolist() == [0]
