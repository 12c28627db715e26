"""Where keys and values lie among the cached numbers of a token."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.bundle.manifest_types import PAST, GraphInfo, Graphs, TensorInfo
from edgezo_runtime.engine.answer_states import AnswerStates, KeyValueLayout
from edgezo_runtime.errors import DivergedError, UsageError

SHAPES = [(2, 4), (1, 6), (3, 2)]  # heads and width of each block


def graphs_of(shapes: list[tuple[int, int] | None]) -> Graphs:
    """Graphs whose blocks take a past of these shapes."""

    def block(shape: tuple[int, int] | None) -> GraphInfo:
        dims = () if shape is None else (("rows", shape[0], "past", shape[1]),)
        inputs = tuple(TensorInfo(PAST[0], "float32", dim) for dim in dims)
        return GraphInfo("block", inputs, (), (), ())

    plain = block(None)
    return Graphs(plain, tuple(map(block, shapes)), plain, plain)


def test_blocks_lie_one_behind_the_other() -> None:
    layout = KeyValueLayout.of(graphs_of(SHAPES), 1)
    assert layout.heads == {1: 1, 2: 3}
    assert layout.widths == {1: 6, 2: 2}
    assert layout.size == 2 * (1 * 6 + 3 * 2)
    assert layout.part(1) == slice(0, 12)
    assert layout.part(2) == slice(12, 24)


def test_a_block_without_a_past_is_refused() -> None:
    graphs = graphs_of([*SHAPES, None])
    with pytest.raises(UsageError, match="block 3 cannot continue"):
        KeyValueLayout.of(graphs, 2)


@pytest.mark.parametrize("groups", [1, 3])
def test_what_is_filled_comes_back_for_every_group(groups: int) -> None:
    layout = KeyValueLayout.of(graphs_of(SHAPES), 0)
    lengths = np.array([3, 1], np.int32)
    states = AnswerStates(
        np.zeros((2, 5), np.float16), np.zeros((2, 3, layout.size), np.float16), lengths, layout
    )
    generator = np.random.default_rng(0)
    made = {
        (block, half): generator.integers(-8, 8, (2, heads, 3, width)).astype(np.float32)
        for block, (heads, width) in enumerate(SHAPES)
        for half in (0, 1)
    }
    for (block, half), values in made.items():
        states.fill(np.array([1, 0]), block, half, values[::-1])
    for block in range(len(SHAPES)):
        found = states.keys_values(block, groups)
        for half in (0, 1):
            expected = made[block, half].copy()
            expected[1, :, 1:] = 0  # the second row has one token
            np.testing.assert_array_equal(found[half], np.tile(expected, (groups, 1, 1, 1)))


def test_numbers_beyond_float16_are_refused() -> None:
    layout = KeyValueLayout.of(graphs_of(SHAPES), 0)
    states = AnswerStates(
        np.zeros((1, 5), np.float16),
        np.zeros((1, 1, layout.size), np.float16),
        np.ones(1, np.int32),
        layout,
    )
    with pytest.raises(DivergedError, match="does not fit"):
        states.fill(np.array([0]), 0, 0, np.full((1, 2, 1, 4), 1e6, np.float32))
