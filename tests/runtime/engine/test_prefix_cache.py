"""Cached states, and the passes that caches choose."""

from __future__ import annotations

import os

import numpy as np
import pytest

from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.answer_states import KeyValueLayout
from edgezo_runtime.engine.chunks import Cutter, Limits
from edgezo_runtime.engine.first_order_pass import ExampleCutter
from edgezo_runtime.engine.prefix_cache import NO_CACHE, AnswerCache, PrefixCache
from edgezo_runtime.errors import DivergedError
from tests.runtime.tiny_sets import random_set

LAYOUT = KeyValueLayout({0: 1}, {0: 2}, {0: 0}, 4)
LENGTHS = (3, 5, 2)


@pytest.fixture
def caches():
    """No cache, one of hidden states, and one of prompts."""
    lengths = np.array(LENGTHS)
    return NO_CACHE, PrefixCache(None, lengths, 4), AnswerCache(None, lengths, 4, LAYOUT)


@pytest.fixture
def batch():
    return make_batch(random_set("labels", LENGTHS, 0), range(3))


def test_evaluated_tokens_are_all_or_the_last_ones(caches, batch):
    assert [cache.evaluated_tokens(batch) for cache in caches] == [10, 10, 3]
    assert [cache.last_tokens for cache in caches] == [False, False, True]


def test_chunks_have_whole_rows_or_last_tokens(caches, batch):
    cutter, examples = Cutter(Limits(1), 64, 4), ExampleCutter(256, 64)
    for cache in caches:
        tokens = 1 if cache.last_tokens else 6  # the longest row, padded to an even number
        assert {chunk.tokens for chunk in cache.cut(cutter, batch, 2)} == {tokens}
        assert {chunk.tokens for chunk in cache.cut_examples(examples, batch)} == {tokens}


def test_prompts_are_missing_until_they_are_put(tmp_path):
    lengths = np.array(LENGTHS)
    cache = AnswerCache(tmp_path / "cache", lengths, 4, LAYOUT)
    states, missing = cache.gather([2, 1], lengths[[2, 1]])
    assert missing.tolist() == [0, 1]
    keys = np.arange(8, dtype=np.float32).reshape(1, 1, 4, 2)
    states.fill(np.array([1]), 0, 0, keys)
    states.fill(np.array([1]), 0, 1, -keys)
    cache.put(states, 1, 1, np.full(4, 0.5, np.float32))
    found, missing = cache.gather([1, 0], lengths[[1, 0]])
    assert missing.tolist() == [1]
    assert found.lengths.tolist() == [4, 2]
    np.testing.assert_array_equal(found.keys_values(0, 1)[:, 0], np.stack([keys[0], -keys[0]]))
    np.testing.assert_array_equal(found.hidden[0], np.full(4, 0.5))
    cache.close()


def test_more_sequences_find_room(tmp_path):
    cache = PrefixCache(tmp_path / "cache", np.array([2]), 4)
    before = cache.size_bytes
    cache.extend(np.array([3]))
    assert cache.size_bytes > before
    states = np.ones((1, 3, 4), np.float32)
    cache.write([1], np.array([3]), states)
    np.testing.assert_array_equal(cache.read([1], 3), states)
    assert cache.read([0], 2) is None
    cache.close()


@pytest.mark.parametrize("bad", [1e5, -1e5, np.inf, np.nan])
def test_states_beyond_float16_stop_the_run(tmp_path, bad):
    cache = PrefixCache(tmp_path / "cache", np.array([3, 2]), 4)
    states = np.ones((2, 3, 4), np.float32)
    states[1, 1, 2] = bad
    with pytest.raises(DivergedError, match="does not fit the prefix cache"):
        cache.write([0, 1], np.array([3, 2]), states)
    cache.close()


def test_padding_may_hold_anything(tmp_path):
    """Pins a check that took the padding's states for the model's."""
    cache = PrefixCache(tmp_path / "cache", np.array([3, 2]), 4)
    states = np.ones((2, 3, 4), np.float32)
    states[1, 2] = 1e30
    kept = cache.write([0, 1], np.array([3, 2]), states)
    assert (kept[1, 2] == 0).all()
    np.testing.assert_array_equal(cache.read([0, 1], 3), kept)
    longer = cache.read([1], 6)
    assert longer.shape == (1, 6, 4)
    np.testing.assert_array_equal(longer[0, :3], kept[1])
    cache.close()
    cache.close()


def test_a_cache_cut_short_is_made_again(tmp_path):
    cache = PrefixCache(tmp_path / "cache", np.array([3]), 4)
    cache.write([0], np.array([3]), np.ones((1, 3, 4), np.float32))
    os.truncate(tmp_path / "cache", 10)
    assert cache.read([0], 3) is None
    cache.close()
