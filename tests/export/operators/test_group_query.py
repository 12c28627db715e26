"""Causal attention: the fused form and its expansion against torch, with and without a past."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators.group_query import GroupQuery, Past
from edgezo_export.operators.unfused import UNFUSED
from edgezo_export.schemes.block_edits import BlockEdits
from edgezo_export.schemes.lora import Lora
from tests.export.graph_runner import run

FLOAT = ir.DataType.FLOAT
HEADS, GROUPS, WIDTH = 4, 2, 16
ANGLES = np.outer(np.arange(12), 0.5 ** np.arange(WIDTH // 2)).astype(np.float32)
FORMS = pytest.mark.parametrize("expand", [{}, UNFUSED], ids=["fused", "expanded"])


def graph(expand, rotary: bool, window: int = 0, past: bool = False) -> GraphBuilder:
    draft = GraphBuilder("attention", expand=expand)
    states = [
        draft.input(name, FLOAT, ("rows", "tokens", heads * WIDTH))
        for name, heads in (("q", HEADS), ("k", GROUPS), ("v", GROUPS))
    ]
    names = ("cos", "sin") if rotary else ()
    tables = tuple(draft.input(name, FLOAT, ("total", WIDTH // 2)) for name in names)
    attention = GroupQuery(draft, HEADS, GROUPS, WIDTH, 0.25, window, 0.0, tables)
    earlier = Past(draft, BlockEdits(draft, Lora(), 0, "m", ())) if past else None
    result = attention.emit(*states, earlier)[0]
    draft.output(result, "y", FLOAT, ("rows", "tokens", HEADS * WIDTH))
    if earlier is not None:
        earlier.declare_outputs()
    return draft


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(0, 1, shape).astype(np.float32)


def states(tokens: int, rows: int = 2) -> dict[str, np.ndarray]:
    sizes = {"q": HEADS, "k": GROUPS, "v": GROUPS}
    return {n: draw(rows, tokens, size * WIDTH, seed=ord(n)) for n, size in sizes.items()}


def split(flat: np.ndarray) -> torch.Tensor:
    rows, tokens, _ = flat.shape
    return torch.tensor(flat.reshape(rows, tokens, -1, WIDTH)).transpose(1, 2)


def turned(x: torch.Tensor) -> torch.Tensor:
    angles = torch.tensor(ANGLES[: x.shape[2]])
    left, right = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)


def reference(own: dict[str, np.ndarray], rotary: bool, window: int) -> np.ndarray:
    q, k, v = (split(own[name]) for name in "qkv")
    if rotary:
        q, k = turned(q), turned(k)
    index = torch.arange(q.shape[2])
    distance = index[:, None] - index
    seen = (distance >= 0) & ((distance < window) if window else True)
    k, v = (x.repeat_interleave(HEADS // GROUPS, 1) for x in (k, v))
    result = torch.nn.functional.scaled_dot_product_attention(q, k, v, seen, scale=0.25)
    return result.transpose(1, 2).flatten(2).numpy()


@FORMS
@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("rotary", [False, True])
def test_result_is_that_of_torch(expand, rotary, window):
    own = states(6)
    tables = {"cos": np.cos(ANGLES[:6]), "sin": np.sin(ANGLES[:6])}
    found = run(graph(expand, rotary, window), own | tables)["y"]
    np.testing.assert_allclose(found, reference(own, rotary, window), atol=1e-5)


@FORMS
@pytest.mark.parametrize("rotary", [False, True])
def test_new_tokens_after_earlier_ones_are_those_of_one_pass(expand, rotary):
    """Rows have 4 and 2 earlier tokens, and room for the new ones."""
    whole, lengths, new = states(6), np.array([4, 2], np.int32), 2
    tables = {"cos": np.cos(ANGLES[:8]), "sin": np.sin(ANGLES[:8])}
    expected = reference(whole, rotary, 0)
    key, value = (split(whole[name]) for name in "kv")
    key = turned(key) if rotary else key
    own = {
        name: np.stack([rows[count : count + new] for rows, count in zip(x, lengths, strict=True)])
        for name, x in whole.items()
    }
    past = {
        "past_key": key.numpy(),
        "past_value": value.numpy(),
        "past_lengths": lengths,
        "active": np.ones((2, new), np.float32),
    }
    found = run(graph(expand, rotary, past=True), own | tables | past)
    for row, count in enumerate(lengths):
        np.testing.assert_allclose(
            found["y"][row], expected[row, count : count + new], atol=1e-5, err_msg=str(row)
        )
    for name, earlier in (("key", key), ("value", value)):
        np.testing.assert_allclose(found[name][0, :, :4], earlier[0, :, :4].numpy(), atol=1e-6)
