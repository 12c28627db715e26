"""Sites of a bundle, and the directions of label logits that they carry."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.training.feedback_sites import (
    FeedbackSite,
    contrasts,
    feedback_sites,
    shares,
    why_no_feedback,
)


def site(block: int = 0, rank: int = 2, hidden: int = 4, width: int = 3) -> FeedbackSite:
    names = f"layers.{block}.down.lora_A", f"layers.{block}.down.lora_B"
    return FeedbackSite(block, "input.down", *names, (rank, width), (hidden, rank))


def test_sites_of_a_bundle(exported):
    manifest = exported("llama").bundle("fp32").manifest
    found = feedback_sites(manifest)
    assert [each.block for each in found] == [0, 1]
    shapes = {info.name: info.shape for info in manifest.trainables}
    for index, each in enumerate(found):
        assert each.tap == "input.mlp.down_proj"
        assert each.name_a == f"model.layers.{index}.mlp.down_proj.lora_A"
        assert each.shape_a == shapes[each.name_a]
        assert each.shape_b == shapes[each.name_b]
        assert each.rank == manifest.scheme.rank
    assert why_no_feedback(manifest) is None


def test_bundles_without_sites_say_why(exported):
    manifest = exported("llama").bundle("fp32").manifest
    plain = [dataclasses.replace(g, outputs=g.outputs[:1]) for g in manifest.graphs.blocks]
    graphs = dataclasses.replace(manifest.graphs, blocks=tuple(plain))
    old = dataclasses.replace(manifest, graphs=graphs)
    assert feedback_sites(old) == ()
    assert "an earlier edgezo exported the bundle" in str(why_no_feedback(old))
    others = tuple(i for i in manifest.trainables if not i.module.endswith("down_proj"))
    bare = dataclasses.replace(manifest, trainables=others)
    assert why_no_feedback(bare) == "the last layers of the blocks have no adapters"
    scheme = dataclasses.replace(manifest.scheme, kind="bitfit")
    assert "bitfit" in str(why_no_feedback(dataclasses.replace(manifest, scheme=scheme)))
    encoder = exported("roberta").bundle("fp32").manifest
    assert "cannot continue" in str(why_no_feedback(encoder))


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
