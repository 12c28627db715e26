"""The noise at the entries of blocks, and what a pass of the carried error keeps."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.bundle.manifest_types import LAYER_INPUT
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.backward import BackwardGraphs
from edgezo_runtime.engine.carried_error_pass import CarriedErrorPass, CarriedSite, EntryNoise
from edgezo_runtime.engine.chunks import Chunk
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.first_order_pass import OrderedSums, WayBack
from edgezo_runtime.engine.forward import WholePass, Work
from tests.runtime.tiny_sets import random_set


def test_noise_belongs_to_rows_and_tokens():
    """Wherever a batch is cut, and however far its rows are filled."""
    entries = EntryNoise(7, 0.1, (2, 3), 5, 4)
    whole = entries.signs(3, np.arange(4), 5)
    part = entries.signs(3, np.array([2, 3]), 6)
    np.testing.assert_array_equal(part[:, :5], whole[2:])
    assert not part[:, 5].any()
    np.testing.assert_array_equal(np.abs(whole), 1)
    assert (entries.signs(2, np.arange(4), 5) != whole).any()
    assert (whole[0] != whole[1]).any()
    assert (whole[0, 0] != whole[0, 1]).any()


@pytest.fixture
def engine(exported):
    made = Engine(exported("llama").bundle("fp32").bundle)
    yield made
    made.close()


@pytest.mark.parametrize(("trains_a", "slope"), [(False, None), (True, None), (True, "slope.x")])
def test_a_wave_counts_what_is_kept(engine, trains_a, slope):
    """Of a token r numbers, inputs where A trains, H slopes of a norm; no states of blocks."""
    manifest = engine.bundle.manifest
    theta = engine.bundle.trainables()
    a, b = (f"model.layers.1.mlp.down_proj.lora_{factor}" for factor in "AB")
    trains = frozenset({a, b} if trains_a else {b})
    site = CarriedSite(f"{LAYER_INPUT}mlp.down_proj", a, b, 1.0, trains, slope=slope)
    examples = random_set("completion", (6, 6), manifest.tokenizer.pad_id)
    batch = make_batch(examples, range(2))
    work = Work(engine.model, batch, SharedParams(theta), lambda: None, 256)
    chunk = Chunk(np.arange(2), 6, batch.positions, slice(0, len(batch.positions)))
    own = (work, None, 0, None, 0, "all")
    graphs = BackwardGraphs(engine.model, scorers_only=True)
    way = WayBack(graphs, engine.num_blocks, (b,), OrderedSums())
    made = CarriedErrorPass(*own, way=way, sites={1: [site]}, carries={}, factors=theta)
    assert made.back_to is None
    rank, width = theta[a].shape
    kept = made.wave_bytes(chunk) - WholePass(*own).wave_bytes(chunk)
    slopes = 0 if slope is None else manifest.model.hidden_size
    assert kept == 4 * 6 * (rank + trains_a * width + slopes)


def test_only_the_scorers_way_back_is_opened(engine):
    graphs = BackwardGraphs(engine.model, scorers_only=True)
    own = engine.bundle.manifest.graphs
    for scorer in (own.score_labels, own.score_tokens):
        assert graphs.through(scorer.file)
    with pytest.raises(KeyError):
        graphs.through(own.blocks[0].file)
