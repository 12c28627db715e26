"""Graphs with their weights at hand: what blocks share, and where their weights lie."""

from __future__ import annotations

import gc
import mmap

import numpy as np
import pytest

from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.file_pages import _merged
from edgezo_runtime.engine.loaded_model import MODELS, LoadedModel


@pytest.fixture
def model(bundle) -> LoadedModel:
    return Engine(bundle).model


def test_spans_less_than_a_page_apart_are_one() -> None:
    page = mmap.PAGESIZE
    near, far = (10, 20), (20 + page, 30 + page)
    assert _merged([far, near]) == (near, far)
    assert _merged([(19 + page, 30 + page), near]) == ((10, 30 + page),)
    assert _merged([(0, 100), (10, 20)]) == ((0, 100),)
    assert _merged([]) == ()


def test_blocks_of_a_kind_share_a_session(model: LoadedModel) -> None:
    first, second = model.blocks
    files = {graph.file for graph in model.bundle.manifest.graphs.blocks}
    assert (first.session is second.session) == (len(files) == 1)
    assert len(model.kinds) == len(files)
    assert max(model.kinds) == 1
    assert first.trainables != second.trainables


def test_the_weights_of_a_block_are_in_its_pages(model: LoadedModel) -> None:
    for index, graph in enumerate(model.blocks):
        size = sum(value.numpy().nbytes for value in graph.weights.values())
        assert model.block_bytes(index) >= size
        assert all(start < end for start, end in graph.held.pages.spans)


def test_dropped_weights_come_back(model: LoadedModel) -> None:
    before = {name: value.numpy().copy() for name, value in model.blocks[0].weights.items()}
    model.drop(0)
    model.drop_vocabulary()
    model.fetch(0)
    for name, value in model.blocks[0].weights.items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_a_value_is_its_array(model: LoadedModel) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(model.value(array).numpy(), array)
    np.testing.assert_array_equal(model.value(array.T).numpy(), array.T)


def test_engines_of_a_bundle_share_a_model_as_long_as_one_lives(bundle) -> None:
    one, other = Engine(bundle), Engine(bundle)
    assert one.model is other.model
    model = MODELS.of(bundle)
    assert model is one.model
    scorer = model.scorer(bundle.manifest.graphs.score_labels)
    assert model.scorer(bundle.manifest.graphs.score_labels) is scorer
    number = id(model)
    del one, model, scorer
    gc.collect()
    assert id(MODELS.of(bundle)) == number  # the other engine has it
