"""Shapes of values whose sizes are computed by nodes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder


def test_sizes_are_followed_through_nodes_that_compute_them():
    """As a short convolution is cut to the tokens that there are: x[:, :(S + 3) - 3]."""
    draft = GraphBuilder("case", gpu=True)
    x = draft.input("x", ir.DataType.FLOAT, ("rows", "tokens", 4))
    tokens = draft.op("Squeeze", draft.op("Shape", x, start=1, end=2))
    wide = draft.op("Pad", x, draft.ints(0, 0, 0, 0, 3, 0))
    more = draft.op("Gather", draft.op("Shape", wide), draft.constant(np.int64(1)))
    end = draft.op("Sub", more, draft.constant(np.int64(3)))
    one = draft.ints(1)
    cut = draft.op("Slice", wide, draft.ints(0), draft.op("Reshape", end, draft.ints(-1)), one)
    steps = draft.op("Range", draft.constant(np.int64(0)), tokens, draft.constant(np.int64(1)))
    column = draft.op("Reshape", steps, draft.op("Concat", draft.ints(-1), one, axis=0))
    shapes = draft.shapes()
    rows, count, width = shapes[str(x.name)]
    assert shapes[str(cut.name)] == (rows, count, width)
    assert shapes[str(column.name)] == (count, 1)
    assert rows != count


def test_sizes_that_values_decide_stay_unknown():
    draft = GraphBuilder("case", gpu=True)
    x = draft.input("x", ir.DataType.FLOAT, ("rows", 4))
    count = draft.input("count", ir.DataType.INT64, (1,))
    twice = draft.op("Mul", count, draft.constant(np.int64(2)))
    cut = draft.op("Slice", x, draft.ints(0), twice, draft.ints(0))
    assert not isinstance(draft.shapes()[str(cut.name)][0], int)


def test_graphs_for_the_processor_keep_their_names():
    draft = GraphBuilder("case")
    x = draft.input("x", ir.DataType.FLOAT, ("rows", 4))
    y = draft.op("Neg", x)
    assert draft.shapes()[str(y.name)] == ("rows", 4)
