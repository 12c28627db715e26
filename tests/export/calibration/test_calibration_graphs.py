"""Blocks that tell what their linear layers read, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.calibration.calibration_graphs import HIDDEN, CalibrationGraphs, NoScheme
from edgezo_export.schemes.scheme import Place
from edgezo_export.trace.canonical import canonicalize
from edgezo_export.trace.partition import partition
from tests.bundles.traces import traced
from tests.export.calibration.linear_inputs import linear_inputs
from tests.export.graph_runner import run
from tests.export.tiny_models import MAX_SEQ, TINY, VOCAB

IDS = np.random.default_rng(0).integers(4, VOCAB, (2, 12))


def graphs_of(name: str):
    """A tiny model and the graphs that calibrate it."""
    from edgezo_export.graphs.checkpoint import Checkpoint

    model = TINY[name].build()
    causal = not TINY[name].encoder
    trace = traced(model.config, type(model), causal=causal, max_seq=MAX_SEQ)
    canonicalize(trace.model)
    cut = partition(trace.model, trace.layers)
    checkpoint = Checkpoint(trace.tied, trace.buffers, VOCAB)
    layers = list(zip(cut.layers, trace.layers, strict=True))
    inputs = tuple(trace.model.graph.inputs)
    return model, CalibrationGraphs(
        cut.prologue, inputs, layers, checkpoint, model.config.hidden_size
    )


@pytest.mark.parametrize(
    "name", ["llama", *(pytest.param(n, marks=pytest.mark.slow) for n in ("gpt2", "bert"))]
)
def test_what_layers_read(name, tmp_path):
    model, graphs = graphs_of(name)
    blocks = graphs.blocks()
    feed = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
    (tmp_path / "p").mkdir()
    prologue = graphs.prologue()
    taken = {key: value for key, value in feed.items() if key in prologue.inputs}
    made = run(prologue, taken, model, tmp_path / "p")
    one = np.ones((1, 1), np.float32)
    feed = made | {"code": one, "decode": one, "active": np.ones(IDS.shape, np.float32)}
    feed |= {"past_lengths": np.zeros(len(IDS), np.int32)}
    (tmp_path / "b").mkdir()
    found = run(blocks[0].draft, feed, model, tmp_path / "b")
    expected = linear_inputs(model, torch.tensor(IDS))
    for output, sources in blocks[0].taps.items():
        for source in sources:
            read = expected[source.removesuffix(".weight")]
            # the embedding has 8 bits here
            np.testing.assert_allclose(found[output], read, atol=0.15, err_msg=source)
            assert np.corrcoef(found[output].ravel(), read.ravel())[0, 1] > 0.999
    assert found[HIDDEN].shape == made["hidden"].shape
    assert set(blocks[0].weights) == set(blocks[0].taps.values())


def test_blocks_of_a_kind_are_one_graph():
    _, graphs = graphs_of("llama")
    first, second = graphs.blocks()
    assert first.draft.serialize() == second.draft.serialize()


def test_no_scheme_edits_nothing():
    assert NoScheme().edits(Place("linear", 0, "m", 4, 4)) == ()
    assert not NoScheme().info().everywhere
    scheme = NoScheme()
    assert scheme.resolve(None) is scheme  # type: ignore[arg-type]
