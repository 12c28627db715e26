"""Entries of a manifest: what they say of themselves."""

from __future__ import annotations

import dataclasses

from edgezo_runtime.bundle.manifest_types import TensorInfo, grad_name
from tests.runtime.tiny_bundle import make_manifest


def test_the_form_of_earlier_keys_and_values():
    past = TensorInfo("past_key", "float32", ("R", 3, "P", 4))
    plain = make_manifest({}).graphs.blocks[0]
    assert plain.past is None
    assert dataclasses.replace(plain, inputs=(*plain.inputs, past)).past == (3, 4)


def test_graphs_continue_only_if_every_block_does():
    graphs = make_manifest({}).graphs
    assert not graphs.continues
    past = TensorInfo("past_key", "float32", ("R", 3, "P", 4))
    blocks = [dataclasses.replace(b, inputs=(*b.inputs, past)) for b in graphs.blocks]
    assert not dataclasses.replace(graphs, blocks=(blocks[0], graphs.blocks[1])).continues
    assert dataclasses.replace(graphs, blocks=tuple(blocks)).continues


def test_graphs_have_names_in_their_order():
    graphs = make_manifest({}).graphs
    names = ["prologue", "blocks[0]", "blocks[1]", "score_labels", "score_tokens", "logits"]
    assert [name for name, _ in graphs.named()] == names
    assert [name for name, _ in dataclasses.replace(graphs, logits=None).named()] == names[:-1]
    assert grad_name("hidden") == "hidden.grad"
