"""Bidirectional attention: the fused form and its expansion against torch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.multi_head import emit_multi_head, window_bias
from edgezo_export.operators.unfused import UNFUSED
from tests.export.graph_runner import run

FLOAT = ir.DataType.FLOAT
ROWS, HEADS, TOKENS, WIDTH = 2, 4, 6, 8


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("expand", [{}, UNFUSED], ids=["fused", "expanded"])
def test_result_is_that_of_torch(expand, window):
    generator = np.random.default_rng(0)
    shape = (ROWS, TOKENS, HEADS * WIDTH)
    states = {name: generator.normal(0, 1, shape).astype(np.float32) for name in "qkv"}
    padding = np.array([[1] * 6, [1, 1, 1, 1, 0, 0]], np.int32)
    draft = GraphBuilder("attention", expand=expand)
    q, k, v = (draft.input(name, FLOAT, shape) for name in "qkv")
    mask = draft.input("padding", ir.DataType.INT32, (ROWS, TOKENS))
    split = draft.input("split", FLOAT, (ROWS, HEADS, TOKENS, WIDTH))
    bias = window_bias(draft, split, window) if window else None
    draft.output(emit_multi_head(draft, (q, k, v), HEADS, 0.3, mask, bias), "y", FLOAT, shape)
    heads = {
        name: torch.tensor(value.reshape(ROWS, TOKENS, HEADS, WIDTH)).transpose(1, 2)
        for name, value in states.items()
    }
    seen = torch.tensor(padding, dtype=torch.bool)[:, None, None].expand(-1, 1, TOKENS, -1)
    if window:
        index = torch.arange(TOKENS)
        seen = seen & ((index[:, None] - index).abs() < window)
    expected = torch.nn.functional.scaled_dot_product_attention(
        heads["q"], heads["k"], heads["v"], attn_mask=seen, scale=0.3
    )
    expected = expected.transpose(1, 2).reshape(shape).numpy()
    feed = states | {"padding": padding, "split": heads["q"].numpy()}
    counted = seen.any(-1)[:, 0].numpy()  # padding far from any token sees none
    found = run(draft, feed)["y"]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[counted], expected[counted], atol=1e-5)
