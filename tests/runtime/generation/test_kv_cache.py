"""Keys and values of rows that grow, end and move."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.generation.decode_pass import PastRows
from edgezo_runtime.generation.kv_cache import (
    ROOM_STEP,
    KvCache,
    bytes_per_token,
    past_shapes,
    room_for,
    room_within,
    turnover,
)
from tests.runtime.engine.test_answer_states import graphs_of

SHAPES = [(2, 4), (1, 6)]
MOST = 3 * ROOM_STEP + 5


@pytest.mark.parametrize(
    ("tokens", "room"),
    [(0, 0), (1, ROOM_STEP), (ROOM_STEP, ROOM_STEP), (ROOM_STEP + 1, 2 * ROOM_STEP), (MOST, MOST)],
)
def test_room_is_in_steps(tokens: int, room: int) -> None:
    assert room_for(tokens, MOST) == room
    assert room_within(room, MOST) == room


@pytest.mark.parametrize("tokens", [ROOM_STEP - 1, ROOM_STEP, MOST - 1, MOST, MOST + 9])
def test_room_within_is_the_largest_that_fits(tokens: int) -> None:
    room = room_within(tokens, MOST)
    assert room <= tokens
    assert room == MOST or room_for(room + 1, MOST) > tokens


def test_bytes_are_those_of_all_blocks_in_float32() -> None:
    graphs = graphs_of(SHAPES)
    assert past_shapes(graphs) == SHAPES
    assert bytes_per_token(graphs) == 4 * 2 * (2 * 4 + 1 * 6)
    assert turnover(graphs) == pytest.approx(1 + 2 * 8 / 14)  # the larger block, twice
    again = graphs_of([(2, 4), None])  # whose texts are read again for every token
    assert (bytes_per_token(again), turnover(again)) == (0, 1)
    with pytest.raises(UsageError, match="block 1 cannot continue"):
        past_shapes(again)


def random_pair(rows: int, block: int, tokens: int) -> list[np.ndarray]:
    heads, width = SHAPES[block]
    generator = np.random.default_rng(tokens)
    return [generator.normal(size=(rows, heads, tokens, width)).astype(np.float32) for _ in "kv"]


def test_prompts_are_stored_and_survive_growth() -> None:
    cache = KvCache(graphs_of(SHAPES), 3, MOST)
    assert cache.nbytes == 0
    cache.reserve(10)
    assert (cache.room, cache.nbytes) == (
        ROOM_STEP,
        3 * ROOM_STEP * bytes_per_token(graphs_of(SHAPES)),
    )
    made = random_pair(2, 0, 10)
    cache.put(0, np.array([2, 0]), np.zeros(2, np.int64), made)
    cache.reserve(ROOM_STEP + 1)
    assert cache.room == 2 * ROOM_STEP
    assert cache.has_room(2 * ROOM_STEP)
    assert not cache.has_room(2 * ROOM_STEP + 1)
    for found, new in zip(cache.of(0, slice(0, 3)), made, strict=True):
        np.testing.assert_array_equal(found[[2, 0], :, :10], new)
        assert not found[1].any()
        assert not found[:, :, 10:].any()


def test_only_new_tokens_are_stored() -> None:
    cache = KvCache(graphs_of(SHAPES), 1, MOST)
    cache.reserve(8)
    old, new = random_pair(1, 1, 6), random_pair(1, 1, 8)
    cache.put(1, np.array([0]), np.array([0]), old)
    cache.put(1, np.array([0]), np.array([5]), new)
    for found, first, second in zip(cache.of(1, slice(0, 1)), old, new, strict=True):
        np.testing.assert_array_equal(found[:, :, :5], first[:, :, :5])
        np.testing.assert_array_equal(found[:, :, 5:8], second[:, :, 5:])


def test_a_token_goes_behind_the_others_of_its_row() -> None:
    cache = KvCache(graphs_of(SHAPES), 3, MOST)
    cache.reserve(10)
    cache.lengths = np.array([4, 9, 2])
    made = random_pair(2, 0, cache.room + 1)
    cache.put_tokens(0, slice(1, 3), made, 1)
    for found, new in zip(cache.of(0, slice(0, 3)), made, strict=True):
        np.testing.assert_array_equal(found[1, :, 9], new[0, :, 9])
        np.testing.assert_array_equal(found[2, :, 2], new[1, :, 2])
        found[1, :, 9] = found[2, :, 2] = 0
        assert not found.any()


def test_rows_that_stay_move_to_the_front() -> None:
    cache = KvCache(graphs_of(SHAPES), 4, MOST)
    cache.reserve(3)
    cache.lengths = np.array([3, 1, 2, 3])
    made = random_pair(4, 1, 3)
    cache.put(1, np.arange(4), np.zeros(4, np.int64), made)
    cache.keep(np.array([1, 3, 3]))
    assert cache.rows == 3
    assert cache.lengths.tolist() == [1, 3, 3]
    for found, new in zip(cache.of(1, slice(0, 3)), made, strict=True):
        np.testing.assert_array_equal(found[:, :, :3], new[[1, 3, 3]])


def test_blocks_that_do_not_run_take_nothing() -> None:
    cache = KvCache(graphs_of(SHAPES), 2, MOST, frozenset({1}))
    cache.reserve(1)
    assert cache.nbytes == 2 * ROOM_STEP * 4 * 2 * 6


def test_a_chunk_sees_neighbouring_rows() -> None:
    cache = KvCache(graphs_of(SHAPES), 3, MOST)
    cache.reserve(1)
    keys, values = PastRows(cache, slice(1, 3)).keys_values(0, 1)
    assert keys.shape == values.shape == (2, 2, ROOM_STEP, 4)
    assert np.shares_memory(keys, cache.of(0, slice(0, 3))[0])
