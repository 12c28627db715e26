"""Rows of the embedding in both forms."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.embedding import embedding_rows, embedding_tensors
from tests.export.graph_runner import run


@pytest.mark.parametrize(("quant", "tolerance"), [("fp32", 0), ("int8", 0.02)])
def test_rows_are_those_of_torch(tmp_path, quant, tolerance):
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(20, 8)}).requires_grad_(False)
    draft = GraphBuilder("embedding")
    ids = draft.input("ids", ir.DataType.INT64, ("rows", "tokens"))
    rows = embedding_rows(draft, "embed.weight", (20, 8), quant, ids)
    draft.output(rows, "y", ir.DataType.FLOAT, ("rows", "tokens", 8))
    chosen = np.array([[3, 19], [0, 3]])
    found = run(draft, {"ids": chosen}, model, tmp_path)["y"]
    np.testing.assert_allclose(found, model["embed"].weight.numpy()[chosen], atol=tolerance)


def test_scales_go_with_int8_only():
    assert embedding_tensors("e.weight", (20, 8), "fp32")[1] is None
    table, scale = embedding_tensors("e.weight", (20, 8), "int8")
    assert (table.dtype, scale.name, scale.shape) == ("U8", "e.scale", (20, 1))
