"""Sites of a bundle, and the directions of label logits that they carry."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import UsageError
from edgezo_runtime.training.feedback_sites import (
    FeedbackSite,
    by_block,
    contrasts,
    feedback_sites,
    heard,
    shares,
    why_no_feedback,
)
from tests.bundles.tiny import tiny_bundle

LAYERS = ("o_proj", "down_proj")


def site(block: int = 0, rank: int = 2, hidden: int = 4, width: int = 3) -> FeedbackSite:
    names = f"layers.{block}.down.lora_A", f"layers.{block}.down.lora_B"
    return FeedbackSite(block, "input.down", *names, (rank, width), (hidden, rank))


def test_sites_of_a_bundle(exported):
    manifest = exported("llama").bundle("fp32").manifest
    found = feedback_sites(manifest)
    layers = ("self_attn.o_proj", "mlp.down_proj")
    places = [(block, layer) for block in (0, 1) for layer in layers]
    shapes = {info.name: info.shape for info in manifest.trainables}
    for each, (block, layer) in zip(found, places, strict=True):
        assert (each.block, each.tap) == (block, f"input.{layer}")
        assert each.name_a == f"model.layers.{block}.{layer}.lora_A"
        assert each.shape_a == shapes[each.name_a]
        assert each.shape_b == shapes[each.name_b]
        assert each.rank == manifest.scheme.rank
        assert each.last == (layer == layers[-1])
    assert why_no_feedback(manifest) is None


def test_bundles_without_sites_say_why(exported):
    manifest = exported("llama").bundle("fp32").manifest
    plain = [dataclasses.replace(g, outputs=g.outputs[:1]) for g in manifest.graphs.blocks]
    graphs = dataclasses.replace(manifest.graphs, blocks=tuple(plain))
    old = dataclasses.replace(manifest, graphs=graphs)
    assert feedback_sites(old) == ()
    assert "an earlier edgezo exported the bundle" in str(why_no_feedback(old))
    assert "such as a layer norm" in str(why_no_feedback(old))
    others = tuple(i for i in manifest.trainables if not i.module.endswith(LAYERS))
    bare = dataclasses.replace(manifest, trainables=others)
    assert (
        why_no_feedback(bare) == "the layers that the blocks add to the residual have no adapters"
    )
    scheme = dataclasses.replace(manifest.scheme, kind="bitfit")
    assert "bitfit" in str(why_no_feedback(dataclasses.replace(manifest, scheme=scheme)))
    encoder = exported("roberta").bundle("fp32").manifest
    assert "the model is an encoder" in str(why_no_feedback(encoder))
    narrow = exported("llama-narrow").bundle("fp32").manifest
    assert "cannot continue" in str(why_no_feedback(narrow))


def test_sites_behind_norms_name_their_slopes(exported):
    manifest = exported("gemma3_text").bundle("fp32").manifest
    layers = ("self_attn.o_proj", "mlp.down_proj")
    outputs = [(f"input.{layer}", f"slope.{layer}") for layer in layers]
    assert [each.outputs for each in feedback_sites(manifest)] == 2 * outputs
    assert site().outputs == ("input.down",)


def test_sites_of_attention_come_first():
    """They are no last layers, even where the MLP has no adapter."""
    manifest = Bundle.open(tiny_bundle("llama", "int8", (2, 4.0), ("o_proj",))).manifest
    found = feedback_sites(manifest)
    assert [(each.block, each.tap, each.last) for each in found] == [
        (block, "input.self_attn.o_proj", False) for block in (0, 1)
    ]
    assert heard(found[1:]) == [(1,)]
    both = [found[0], site(0), found[1], site(1)]
    assert by_block(both, lambda each: each.last) == {0: (False, True), 1: (False, True)}


def test_sites_hear_the_blocks_around_them():
    """Two on each side; attention ends between two. Blocks without sites are silent."""
    many = [site(block) for block in (3, 4, 5, 6, 9)]
    assert heard(many) == [(3, 4, 5), (3, 4, 5, 6), (3, 4, 5, 6), (4, 5, 6), (9,)]
    inside = dataclasses.replace(many[3], last=False)
    assert heard([*many, inside])[-1] == (3, 4, 5, 6)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_contrasts_span_what_the_loss_can_tell_apart(classes):
    found = contrasts(classes).astype(np.float64)
    assert found.shape == (classes, classes - 1)
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found.T @ found, np.eye(classes - 1), atol=1e-6)


def test_one_class_has_no_error():
    with pytest.raises(UsageError, match="two classes"):
        contrasts(1)


def test_sites_take_turns():
    """Of five directions, sites of rank 2 carry two each; a wide site carries all, once."""
    sites = [site(block) for block in range(3)]
    assert shares(sites, 5) == [(0, 1), (2, 3), (4, 0)]
    assert shares([site(rank=4)], 2) == [(0, 1)]
    assert shares([site(block, rank=1) for block in range(3)], 1) == [(0,), (0,), (0,)]
