"""Choice of tokens: shares against a softmax, draws by their frequency."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.errors import DivergedError, UsageError
from edgezo_runtime.generation.sampling import Sampling

LOGITS = np.log(np.array([0.1, 0.4, 0.05, 0.25, 0.2], np.float32))


def test_the_likeliest_token_and_the_first_of_equals():
    assert Sampling().choose(LOGITS, 0, 0) == 1
    assert Sampling().choose(np.array([1, 3, 3], np.float32), 0, 0) == 1


@pytest.mark.parametrize(
    ("options", "tokens", "shares"),
    [
        ({}, [1, 3, 4, 0, 2], [0.4, 0.25, 0.2, 0.1, 0.05]),
        ({"top_k": 2}, [1, 3], [0.4 / 0.65, 0.25 / 0.65]),
        ({"top_p": 0.5}, [1, 3], [0.4 / 0.65, 0.25 / 0.65]),
        ({"top_p": 0.39}, [1], [1.0]),
        ({"top_p": 0.86}, [1, 3, 4, 0], [0.4 / 0.95, 0.25 / 0.95, 0.2 / 0.95, 0.1 / 0.95]),
        # of the two that top-k leaves, the first has 0.615
        ({"top_k": 2, "top_p": 0.6}, [1], [1.0]),
    ],
)
def test_shares_are_those_of_a_softmax(options, tokens, shares):
    found, own = Sampling(1.0, **options).shares(LOGITS)
    assert found.tolist() == tokens
    np.testing.assert_allclose(own, shares, rtol=1e-5)


def test_temperature_divides_the_logits():
    _, cold = Sampling(0.5).shares(LOGITS)
    squares = np.array([0.4, 0.25, 0.2, 0.1, 0.05]) ** 2
    np.testing.assert_allclose(cold, squares / squares.sum(), rtol=1e-5)


def test_draws_have_their_shares():
    sampling, count = Sampling(1.0, seed=7), 4000
    drawn = np.bincount([sampling.choose(LOGITS, 0, n) for n in range(count)], minlength=5)
    expected = np.exp(LOGITS)
    error = np.sqrt(expected * (1 - expected) / count)
    assert (np.abs(drawn / count - expected) < 4 * error).all()


def test_draws_depend_on_seed_text_and_place_alone():
    draws = [
        [Sampling(1.0, seed=seed).choose(LOGITS, text, place) for place in range(30)]
        for seed, text in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 3


def test_logits_may_be_infinite_but_not_undefined():
    assert Sampling(1.0).choose(np.array([-np.inf, 0, -np.inf], np.float32), 0, 0) == 1
    with pytest.raises(DivergedError, match="text 3, token 5: a logit is not a number"):
        Sampling().choose(np.array([0, np.nan], np.float32), 3, 5)
    with pytest.raises(DivergedError, match="not a number"):
        Sampling(1.0).choose(np.array([0, np.inf, np.inf], np.float32), 0, 0)


@pytest.mark.parametrize("temperature", [1e-300, 1e-307, 5e-324])
def test_the_tiniest_temperature_takes_the_likeliest(temperature):
    """Logits over it are beyond all numbers; their differences must be taken before."""
    large = 30 * np.array([1, 5, 3, 2, 4], np.float32)
    assert Sampling(temperature, seed=1).choose(large, 0, 0) == 1


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"temperature": -1.0}, "`temperature`"),
        ({"temperature": float("nan")}, "`temperature`"),
        ({"top_k": -1}, "`top_k`"),
        ({"top_p": 0.0}, "`top_p`"),
        ({"top_p": 1.5}, "`top_p`"),
        ({"seed": -1}, "`seed`"),
    ],
)
def test_values_that_make_no_sense_are_refused(options, setting):
    with pytest.raises(UsageError, match=setting):
        Sampling(**options).check()
