"""Block schedules: which blocks are active, and texts that name a schedule."""

from collections import Counter

import numpy as np
import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.block_schedules import SCHEDULES, parse_schedule

BLOCKS = (2, 3, 5, 8, 9)


def test_all_and_last_are_the_same_in_every_step() -> None:
    for step in (0, 1, 7):
        assert parse_schedule("all")(step, 0, BLOCKS) == BLOCKS
        assert parse_schedule("last:2")(step, 0, BLOCKS) == (8, 9)
        assert parse_schedule("last:99")(step, 0, BLOCKS) == BLOCKS


def test_cyclic_goes_round_in_order() -> None:
    one = parse_schedule("cyclic")
    assert [one(step, 0, BLOCKS) for step in range(6)] == [(2,), (3,), (5,), (8,), (9,), (2,)]
    two = parse_schedule("cyclic:2")
    assert [two(step, 0, BLOCKS) for step in range(4)] == [(2, 3), (5, 8), (2, 9), (3, 5)]
    assert parse_schedule("cyclic:9")(3, 0, BLOCKS) == BLOCKS


def test_random_draws_different_blocks_evenly() -> None:
    schedule = parse_schedule("random:2")
    drawn = [schedule(step, 0, BLOCKS) for step in range(5000)]
    assert all(len(set(blocks)) == 2 and list(blocks) == sorted(blocks) for blocks in drawn)
    pairs = Counter(drawn)
    assert len(pairs) == 10
    # each pair 500 times; binomial standard deviation 21
    assert all(abs(count - 500) < 5 * 21 for count in pairs.values())


def test_random_is_a_function_of_seed_and_step() -> None:
    schedule = parse_schedule("random:1")
    first = [schedule(step, 0, BLOCKS) for step in range(100)]
    assert [schedule(step, 0, BLOCKS) for step in reversed(range(100))] == first[::-1]
    assert [schedule(step, 1, BLOCKS) for step in range(100)] != first
    assert parse_schedule("random:9")(0, 0, BLOCKS) == BLOCKS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top", "'top': expected one of all, cyclic, random, last"),
        ("last:", "whole number after 'last:'"),
        ("last:-1", "whole number after 'last:'"),
        ("last:0", "needs 1 block per step or more, not 0"),
        ("cyclic:0", "needs 1 block"),
        ("random:2.5", "whole number"),
        ("all:3", "takes no number"),
    ],
)
def test_a_wrong_schedule_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_schedule(text)


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_blocks_is_an_error(name: str) -> None:
    with pytest.raises(UsageError, match="no trainable blocks"):
        SCHEDULES[name]()(0, 0, [])


@pytest.mark.parametrize(
    ("text", "blocks", "count"),
    [
        ("random:25%", 8, 2),
        ("random:25%", 30, 8),  # 7.5, rounded up
        ("random:25%", 2, 1),
        ("random:1%", 8, 1),
        ("random:100%", 8, 8),
        ("random:50%", 5, 3),
    ],
)
def test_a_share_of_the_blocks(text: str, blocks: int, count: int) -> None:
    schedule, own = parse_schedule(text), range(10, 10 + blocks)
    chosen = [schedule(step, 0, own) for step in range(300)]
    assert {len(set(active)) for active in chosen} == {count}
    assert all(list(active) == sorted(active) for active in chosen)
    seen = np.bincount(np.concatenate(chosen) - 10, minlength=blocks)
    expected = 300 * count / blocks
    assert (np.abs(seen - expected) < 5 * np.sqrt(expected) + 1e-9).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random:0%", "0% is not 1% to 100%"),
        ("random:101%", "101% is not 1% to 100%"),
        ("random:%", "expected a whole number after 'random:'"),
        ("random:²%", "expected a whole number"),
        ("cyclic:25%", "expected a whole number after 'cyclic:'"),
        ("last:25%", "expected a whole number after 'last:'"),
    ],
)
def test_shares_that_are_none_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_schedule(text)
