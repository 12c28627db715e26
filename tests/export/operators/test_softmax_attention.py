"""Attention in standard operators against torch."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.softmax_attention import softmax_attention, split_heads
from tests.export.graph_runner import run

FLOAT = ir.DataType.FLOAT


@pytest.mark.parametrize("cap", [0.0, 2.0])
@pytest.mark.parametrize("groups", [4, 2, 1])
def test_result_is_that_of_torch(groups, cap):
    generator = np.random.default_rng(0)
    rows, heads, tokens, width = 2, 4, 5, 8
    q = generator.normal(0, 1, (rows, heads, tokens, width)).astype(np.float32)
    k, v = (generator.normal(0, 1, (rows, groups, 7, width)).astype(np.float32) for _ in range(2))
    bias = generator.normal(0, 1, (1, 1, tokens, 7)).astype(np.float32)
    draft = GraphBuilder("attention")
    own = {"q": q, "k": k, "v": v, "bias": bias}
    inputs = [draft.input(name, FLOAT, value.shape) for name, value in own.items()]
    states = (inputs[0], inputs[1], inputs[2])
    result = softmax_attention(draft, states, (heads, groups), 0.5, [inputs[3]], cap)
    draft.output(result, "y", FLOAT, (rows, tokens, heads * width))
    a, b, c = (torch.tensor(value) for value in (q, k, v))
    b, c = (value.repeat_interleave(heads // groups, 1) for value in (b, c))
    scores = 0.5 * a @ b.transpose(2, 3)
    if cap:
        scores = torch.tanh(scores / cap) * cap
    weights = torch.softmax(scores + torch.tensor(bias), -1)
    expected = (weights @ c).transpose(1, 2).reshape(rows, tokens, -1).numpy()
    np.testing.assert_allclose(run(draft, own)["y"], expected, atol=1e-5)


def test_heads_are_split_from_the_last_axis():
    draft = GraphBuilder("heads")
    x = draft.input("x", FLOAT, ("r", "s", 12))
    draft.output(split_heads(draft, x, 3), "y", FLOAT, ("r", 3, "s", 4))
    flat = np.arange(2 * 5 * 12, dtype=np.float32).reshape(2, 5, 12)
    expected = flat.reshape(2, 5, 3, 4).swapaxes(1, 2)
    np.testing.assert_array_equal(run(draft, {"x": flat})["y"], expected)
