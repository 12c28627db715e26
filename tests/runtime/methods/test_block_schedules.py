"""Block schedules and learning-rate schedules."""

from collections import Counter

import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.block_schedules import SCHEDULES, parse_schedule
from edgezo_runtime.methods.lr_schedules import LR_SCHEDULES, constant, cosine, linear, trapezoid

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


@pytest.mark.parametrize("name", LR_SCHEDULES)
def test_lr_schedules_warm_up_to_one(name: str) -> None:
    schedule = LR_SCHEDULES[name]
    assert schedule(0.0, 0.0) == 1
    assert schedule(0.0, 0.2) == 0
    assert schedule(0.1, 0.2) == pytest.approx(0.5)
    assert schedule(0.2, 0.2) == 1
    assert all(0 <= schedule(i / 100, 0.3) <= 1 for i in range(101))


def test_lr_schedules_end_where_they_should() -> None:
    assert constant(1.0) == constant(0.5) == 1
    assert linear(0.25) == 0.75
    assert linear(0.6, 0.2) == pytest.approx(0.5)
    assert linear(1.0) == 0
    assert trapezoid(0.6) == 1
    assert trapezoid(0.8) == pytest.approx(0.5)
    assert trapezoid(1.0) == 0
    assert cosine(0.5) == pytest.approx(0.5)
    assert cosine(0.25) == pytest.approx(0.853553, abs=1e-6)
    assert cosine(1.0) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(("fraction", "warmup"), [(-0.1, 0), (1.1, 0), (0.5, 1.0), (0.5, -0.1)])
def test_lr_schedules_refuse_what_is_out_of_range(fraction: float, warmup: float) -> None:
    with pytest.raises(UsageError, match="must be"):
        constant(fraction, warmup)
