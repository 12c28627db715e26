"""Keys and values that stay on a device are those that the host would have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from edgezo_runtime.devices.cpu import CPU
from edgezo_runtime.devices.opening import packaged_graph
from edgezo_runtime.generation.device_cache import DeviceKvCache
from edgezo_runtime.generation.kv_cache import ROOM_STEP, KvCache
from tests.runtime.engine.test_answer_states import graphs_of

SHAPES = [(2, 4), (1, 6)]
MOST = 3 * ROOM_STEP + 5


def caches(rows: int) -> tuple[DeviceKvCache, KvCache]:
    graphs: Any = graphs_of(SHAPES)
    model: Any = SimpleNamespace(
        bundle=SimpleNamespace(manifest=SimpleNamespace(graphs=graphs)),
        value=CPU.put,
        packaged=lambda name: CPU.open(packaged_graph(name)),
    )
    return DeviceKvCache(model, rows, MOST), KvCache(graphs, rows, MOST)


def random_pair(rows: int, block: int, tokens: int) -> list[np.ndarray]:
    heads, width = SHAPES[block]
    generator = np.random.default_rng((rows, block, tokens))
    return [generator.normal(size=(rows, heads, tokens, width)).astype(np.float32) for _ in "kv"]


def assert_same(found: DeviceKvCache, expected: KvCache) -> None:
    assert (found.rows, found.room) == (expected.rows, expected.room)
    assert found.lengths.tolist() == expected.lengths.tolist()
    for block in range(len(SHAPES)):
        for rows in (slice(0, found.rows), slice(found.rows - 1, found.rows)):
            for own, other in zip(found.of(block, rows), expected.of(block, rows), strict=True):
                np.testing.assert_array_equal(CPU.fetch(own), other)


def test_texts_grow_end_and_move_as_on_the_host() -> None:
    found, expected = caches(4)
    order = np.array([2, 0, 3, 1])

    def read_tokens(rows: slice, tokens: int) -> None:
        for block in range(len(SHAPES)):
            made = random_pair(len(range(found.rows)[rows]), block, tokens)
            found.put_tokens(block, rows, [CPU.put(own) for own in made], tokens)
            expected.put_tokens(block, rows, made, tokens)

    for cache in (found, expected):
        cache.reserve(10)
    for block in range(len(SHAPES)):
        made = random_pair(4, block, 10)
        found.put(block, order, [CPU.put(own) for own in made])
        expected.put(block, order, np.zeros(4, np.int64), made)
    for cache in (found, expected):
        cache.lengths = np.array([3, 10, 7, 9])
    assert_same(found, expected)
    read_tokens(slice(0, 4), 1)
    read_tokens(slice(1, 3), 1)  # some of the rows, as several chunks read them
    for cache in (found, expected):
        cache.lengths = cache.lengths + 1
        cache.keep(np.array([0, 2, 3, 3]))
        cache.keep(np.array([1, 2, 2]))  # twice before a block runs
        cache.reserve(ROOM_STEP + 1)
        assert cache.has_room(2 * ROOM_STEP)
        assert not cache.has_room(2 * ROOM_STEP + 1)
    read_tokens(slice(0, 3), 5)
    assert_same(found, expected)


def test_what_is_padded_beyond_the_room_is_left_out() -> None:
    found, expected = caches(1)
    made = random_pair(1, 0, ROOM_STEP + 3)
    for cache in (found, expected):
        cache.reserve(ROOM_STEP)
    found.put(0, np.array([0]), [CPU.put(own) for own in made])
    expected.put(0, np.array([0]), np.zeros(1, np.int64), made)
    assert_same(found, expected)


def test_blocks_share_the_room_that_is_empty_yet() -> None:
    found, _ = caches(2)
    found.reserve(1)
    keys, values = found.of(0, slice(0, 2))
    assert keys is values
    assert found.nbytes == 0
