"""Which blocks learn by feedback, from how many pairs, and which bundles cannot."""

from __future__ import annotations

import dataclasses

import pytest

from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.training.feedback_layout import FeedbackLayout, learns_feedback
from edgezo_runtime.training.layout import RunLayout
from tests.runtime.tiny_bundle import make_manifest


def test_only_the_method_learns_feedback():
    assert learns_feedback(method_config("feedback"))
    assert not learns_feedback(TuneConfig())


@pytest.mark.parametrize(("blocks", "expected"), [("auto", [1]), ("all", [0, 1]), ("0", [0])])
def test_blocks(exported, blocks, expected):
    manifest = exported("llama").bundle("fp32").manifest
    layout = FeedbackLayout(manifest, method_config("feedback", blocks=blocks))
    both = [block for block in expected for _ in ("self_attn.o_proj", "mlp.down_proj")]
    assert [site.block for site in layout.sites] == both
    assert layout.first_block == expected[0]
    assert list(layout.tensors.values()) == both
    shapes = {info.name: info.shape for info in manifest.trainables}
    elements = sum(shapes[name][0] * shapes[name][1] for name in layout.tensors)
    assert layout.codec.nbytes == elements + 4 * len(both)
    inputs = sum(shapes[name][1] for name in layout.tensors)
    assert layout.means.nbytes == inputs + 4 * len(both)


def test_pairs(exported):
    manifest = exported("llama").bundle("fp32").manifest
    assert FeedbackLayout(manifest, method_config("feedback")).pairs == 960
    assert FeedbackLayout(manifest, method_config("feedback", pairs=7)).pairs == 7
    with pytest.raises(UsageError, match="`pairs` 0: must be 1 or more"):
        FeedbackLayout(manifest, method_config("feedback", pairs=0))


def test_epochs_begin_after_the_pairs(exported):
    """Four passes over 100 rows in batches of 16, after 40 pairs."""
    manifest = exported("llama").bundle("fp32").manifest
    layout = RunLayout(manifest, method_config("feedback", pairs=40), 100)
    assert (layout.blocks, layout.first, layout.batch_size) == ([], 1, 16)
    assert layout.config.steps == 75 + 3  # twelve passes over few rows


def test_a_bundle_without_sites_is_refused():
    manifest = make_manifest({})
    with pytest.raises(UsageError, match=r"`method` feedback: .*run 'edgezo export' again"):
        FeedbackLayout(manifest, method_config("feedback"))
    config = dataclasses.replace(method_config("feedback"), blocks="auto")
    with pytest.raises(UsageError, match="feedback"):
        RunLayout(manifest, config, 4)
