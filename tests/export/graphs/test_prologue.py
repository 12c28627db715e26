"""The prologue: embeddings and the context that blocks request."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from edgezo_export.graphs.context import Context
from edgezo_export.graphs.prologue import lower_prologue
from tests.export.graph_runner import run
from tests.export.tiny_models import HIDDEN


def test_hidden_states_are_the_embeddings(parts, tmp_path):
    inputs, ids = parts.trace.model.graph.inputs, np.array([[5, 9, 11], [4, 4, 96]])
    context = Context()
    draft = lower_prologue(parts.cut.prologue, inputs, parts.checkpoint, context, "fp32", HIDDEN)
    found = run(draft, {"input_ids": ids}, parts.model, tmp_path)
    expected = parts.model.model.embed_tokens(torch.tensor(ids)).detach().numpy()
    assert found.keys() == {"hidden"}  # no block has requested context
    np.testing.assert_array_equal(found["hidden"], expected)


def test_rotary_tables_come_in_half_their_width(parts, tmp_path):
    inputs, ids = parts.trace.model.graph.inputs, np.array([[5, 9, 11]])
    context = Context()
    tables = [value for value in parts.cut.context if len(value.shape) == 3]
    whole, half = (request(tables[0]) for request in (context.tensor, context.rotary_cache))
    draft = lower_prologue(parts.cut.prologue, inputs, parts.checkpoint, context, "fp32", HIDDEN)
    found = run(draft, {"input_ids": ids}, parts.model, tmp_path)
    np.testing.assert_array_equal(found[half], found[whole][0, :, : found[half].shape[1]])
    assert found[half].shape == (3, found[whole].shape[2] // 2)


def test_the_order_of_the_trace_changes_no_byte(parts):
    """transformers makes the tables of several rotary embeddings in the order of a set."""
    cut, inputs, context = parts.cut.prologue, parts.trace.model.graph.inputs, Context()
    for value in parts.cut.context:
        if len(value.shape) == 3:
            context.tensor(value)
    assert context.needed
    others = dataclasses.replace(cut, nodes=cut.nodes[::-1])
    one, other = (
        lower_prologue(segment, inputs, parts.checkpoint, context, "fp32", HIDDEN).serialize()
        for segment in (cut, others)
    )
    assert one == other
