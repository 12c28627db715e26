"""The estimate of feedback directions: its mean and error, its units, the same bits in parts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_runtime.errors import DivergedError
from edgezo_runtime.noise import noise
from edgezo_runtime.training.feedback_estimate import FeedbackEstimate, error_signals
from edgezo_runtime.training.feedback_sites import REACH, FeedbackSite, contrasts, noise_name

HIDDEN, WIDTH = 24, 10


def sites(count: int, rank: int) -> list[FeedbackSite]:
    return [
        FeedbackSite(b, "input.down", f"{b}.A", f"{b}.B", (rank, WIDTH), (HIDDEN, rank))
        for b in range(count)
    ]


def signs(seed: int, name: str, row: int) -> np.ndarray:
    return noise(seed, name, (HIDDEN,), kind="rademacher", row=row).astype(np.float64)


def linear(answers: dict[str, np.ndarray], seed: int, rows: int) -> np.ndarray:
    """Differences (rows, C - 1) of a model whose logits answer linearly, J (C - 1, H) by name."""
    found = [
        sum(answer @ signs(seed, name, row) for name, answer in answers.items())
        for row in range(rows)
    ]
    return np.array(found, np.float32)


def answers_of(own: list[FeedbackSite], count: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {noise_name(each.block): generator.normal(0, 1, (count, HIDDEN)) for each in own}


def test_the_mean_is_the_answer_of_the_logits():
    """Within four standard errors, sqrt(E d^2 / pairs) in every element."""
    own = sites(5, 2)
    answers = answers_of(own, 2)
    estimate = FeedbackEstimate(own, 2)
    for seed in range(100):
        estimate.add(seed, linear(answers, seed, 16))
    assert estimate.pairs == 1600
    for each in own:
        name, blocks = each.name_b, [b for b in range(5) if abs(b - each.block) <= REACH]
        answer = sum(answers[noise_name(block)] for block in blocks)
        error = np.sqrt(len(blocks) * estimate.squares)[:, None] / estimate.pairs
        difference = estimate.sums[name] / estimate.pairs - answer
        assert (np.abs(difference) < 4.5 * error).all()
        assert 0.8 < np.sqrt(np.mean((difference / error) ** 2)) < 1.2
    squares = sum((answer**2).sum(axis=1) for answer in answers.values())
    np.testing.assert_allclose(estimate.squares / 1600, squares, rtol=0.15)


def test_sums_by_hand():
    own = sites(1, 1)
    estimate = FeedbackEstimate(own, 1)
    estimate.add(5, np.array([[0.5], [-2.0]], np.float32))
    expected = 0.5 * signs(5, "hidden.0", 0) - 2.0 * signs(5, "hidden.0", 1)
    np.testing.assert_array_equal(estimate.sums["0.B"][0], expected)
    assert estimate.squares.tolist() == [4.25]


def test_a_layer_inside_a_block_hears_both_sides():
    """Its estimate has one block more before it; the length of B is that of others."""
    many = sites(8, 1)
    whole = [*many, FeedbackSite(4, "input.o", "o.A", "o.B", (1, WIDTH), (HIDDEN, 1), False)]
    estimate = FeedbackEstimate(whole, 1)
    for seed in range(4):
        estimate.add(seed, linear(answers_of(many, 1), seed, 16))
    one = FeedbackEstimate(many[1:2], 1)
    for seed in range(4):
        one.add(seed, linear(answers_of(many, 1), seed, 16))
    expected = estimate.sums["4.B"] + one.sums["1.B"]
    np.testing.assert_allclose(estimate.sums["o.B"], expected, rtol=1e-5, atol=1e-3)
    found = estimate.directions(1.0, dict.fromkeys((each.name_a for each in whole), 1.0))
    lengths = [np.linalg.norm(value) for value in found.values()]
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)


@pytest.mark.parametrize(("count", "rank"), [(4, 2), (8, 1)])
def test_a_step_is_in_units_of_logits(count, rank):
    """Every A moves by lr in the sign of its input: each direction of the logits moves by lr.

    It is less by the root of the share of sites that carry a direction.
    """
    own, lr, scale = sites(count, rank), 0.3, 2.0
    shared = np.random.default_rng(0).normal(0, 1, (2, HIDDEN))
    answers = {noise_name(each.block): shared for each in own}  # as neighbours are in a model
    estimate = FeedbackEstimate(own, 2)
    generator = np.random.default_rng(1)
    inputs = {each.name_a: generator.normal(0, each.block + 1, WIDTH) for each in own}
    sizes = {name: float(np.abs(x).sum()) for name, x in inputs.items()}
    for seed in range(50):
        estimate.add(seed, linear(answers, seed, 16))
    found = estimate.directions(scale, sizes)
    moved = np.zeros(2)
    for each in own:
        x = inputs[each.name_a]
        for row in range(rank):
            step = np.zeros((rank, WIDTH))
            step[row] = lr * np.sign(x)
            shift = scale * found[each.name_b].astype(np.float64) @ (step @ x)
            direction = row if rank == 2 else each.block % 2  # sites of rank 1 take turns
            moved[direction] += answers[noise_name(each.block)][direction] @ shift
    np.testing.assert_allclose(moved, lr * np.sqrt(rank / 2), rtol=0.25)


def test_a_step_through_norms_is_in_units_of_logits():
    """As without norms, though their slopes differ by a factor of hundreds, and in their signs."""
    own = [dataclasses.replace(each, slope="slope.down") for each in sites(6, 1)]
    generator = np.random.default_rng(1)
    slopes = {s.name_b: generator.lognormal(1, 2, HIDDEN).astype(np.float32) for s in own}
    for slope in slopes.values():
        slope[::5] *= -1
    shared = np.random.default_rng(0).normal(0, 1, (1, HIDDEN))
    answers = {noise_name(each.block): shared for each in own}
    estimate = FeedbackEstimate(own, 1)
    for seed in range(50):
        estimate.add(seed, linear(answers, seed, 16))
    sizes = dict.fromkeys((each.name_a for each in own), 2.0)
    found = estimate.directions(3.0, sizes, slopes)
    lr, moved, least = 0.3, 0.0, np.inf
    for each in own:  # an input of size 2, every element of A moves by lr
        shift = 3.0 * found[each.name_b][:, 0].astype(np.float64) * (2.0 * lr)
        change = float((shared[0] * slopes[each.name_b]) @ shift)
        moved, least = moved + change, min(least, change)
    assert moved == pytest.approx(lr, rel=0.25)
    assert least > 0  # no site turns the logits the other way


def test_signals_match_directions():
    """A row of A receives the error along the contrast whose answer is its column of B."""
    own = sites(3, 2)
    found = error_signals(own, contrasts(4))
    np.testing.assert_array_equal(found["0.A"], contrasts(4)[:, [0, 1]])
    np.testing.assert_array_equal(found["1.A"], contrasts(4)[:, [2, 0]])
    wide = error_signals(sites(1, 3), contrasts(2))["0.A"]
    np.testing.assert_array_equal(wide[:, 0], contrasts(2)[:, 0])
    assert not wide[:, 1:].any()


def test_no_answer_is_an_error():
    estimate = FeedbackEstimate(sites(1, 1), 1)
    estimate.add(0, np.zeros((4, 1), np.float32))
    with pytest.raises(DivergedError, match="behind block 0"):
        estimate.directions(1.0, {"0.A": 1.0})
    estimate = FeedbackEstimate(sites(1, 1), 1)
    estimate.add(0, np.full((4, 1), 1e-25, np.float32))
    with pytest.raises(DivergedError, match="out of all proportion"):
        estimate.directions(1.0, {"0.A": 1.0})
