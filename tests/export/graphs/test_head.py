"""The head at chosen positions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.graphs.head import aligned, gathered, split_at_head
from tests.export.graph_runner import run
from tests.export.tiny_models import HIDDEN, VOCAB


def test_the_epilogue_is_split_at_the_head(parts):
    before, head, after = split_at_head(parts.cut.epilogue.nodes)
    assert [node.op_type for node in before] == ["RmsNorm"]
    assert head.op_type == "Linear"
    assert not after
    with pytest.raises(UnsupportedModelError, match="no language-model head"):
        split_at_head(before)


def test_the_head_is_known_by_its_parameters(parts):
    draft = GraphBuilder("head")
    _, states, head, (node, after) = gathered(draft, parts.cut.epilogue, parts.checkpoint, HIDDEN)
    assert (head.name, head.shape, head.bias) == ("lm_head.weight", (VOCAB, HIDDEN), None)
    assert states.producer().op_type == "Reshape"
    assert node.op_type == "Linear"
    assert after == ()


@pytest.mark.parametrize(("width", "filled"), [(16, 16), (17, 32), (3, 16)])
def test_rows_are_filled_up_to_64_bytes(width, filled):
    draft = GraphBuilder("aligned")
    x = draft.input("x", ir.DataType.FLOAT, ("rows", width))
    draft.output(aligned(draft, x, width), "y", ir.DataType.FLOAT, ("rows", filled))
    found = run(draft, {"x": np.ones((2, width), np.float32)})["y"]
    assert found.shape == (2, filled)
    assert found.sum() == 2 * width
