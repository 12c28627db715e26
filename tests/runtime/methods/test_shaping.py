"""Shaping: scale goes, direction stays, outliers are bounded."""

import math

import numpy as np
import pytest

from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.estimators import Term
from edgezo_runtime.methods.shaping import Normalizer


def private(*coeff: float) -> list[Term]:
    return [Term(3, coeff, private=True)]


def test_one_step_is_divided_by_its_own_rms() -> None:
    """The running mean is corrected for its start at zero."""
    (term,), _ = Normalizer().apply([Term(5, (-0.004,))], Normalizer().init())
    assert term == Term(5, (-1.0,))
    (term,), _ = Normalizer(clip=math.inf).apply(private(0.3, -0.4), (0.0, 0.0))
    # the weight 1/2 of each direction stays; the projected gradients inside have rms 1
    np.testing.assert_allclose(np.multiply(term.coeff, 2), np.array([0.3, -0.4]) / 0.125**0.5)


def test_the_scale_of_the_loss_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    steps = [tuple(row) for row in generator.normal(size=(20, 6))]
    results = []
    for scale in (1.0, 2.0**40, 2.0**-40):  # powers of two, so the bits must agree
        state, shaped = Normalizer().init(), []
        for step in steps:
            terms, state = Normalizer().apply(private(*(scale * c for c in step)), state)
            shaped.append(terms)
        results.append(shaped)
    assert results[0] == results[1] == results[2]


def test_the_running_square_is_an_average_over_steps() -> None:
    normalizer, state = Normalizer(decay=0.5, clip=math.inf), (0.0, 0.0)
    for value in (1.0, 3.0):
        (term,), state = normalizer.apply([Term(0, (value,))], state)
    assert state == (0.25 * 1 + 0.5 * 9, 0.75)
    assert term.coeff[0] == pytest.approx(3 / math.sqrt(4.75 / 0.75))


def test_terms_of_one_step_are_taken_together() -> None:
    """An estimate of several terms keeps their proportions."""
    terms = [Term(1, (1.0, -2.0), private=True), Term(2, (0.5, 0.0), private=True)]
    shaped, state = Normalizer(clip=math.inf).apply(terms, (0.0, 0.0))
    factor = shaped[0].coeff[0]
    assert [term.seed for term in shaped] == [1, 2]
    assert all(term.private for term in shaped)
    for before, after in zip(terms, shaped, strict=True):
        np.testing.assert_allclose(after.coeff, np.multiply(before.coeff, factor))
    assert 4 * np.square([c for t in shaped for c in t.coeff]).sum() == pytest.approx(1)
    assert state[1] == pytest.approx(0.05)


def test_outliers_are_clipped_and_nothing_else() -> None:
    coeff = (*[0.1, -0.1] * 20, 50.0, -50.0)
    (term,), _ = Normalizer(clip=2.5).apply(private(*coeff), (0.0, 0.0))
    (free,), _ = Normalizer(clip=math.inf).apply(private(*coeff), (0.0, 0.0))
    assert term.coeff[:40] == free.coeff[:40]
    assert np.multiply(term.coeff[40:], len(coeff)).tolist() == pytest.approx([2.5, -2.5])
    assert np.abs(free.coeff[40:]).min() * len(coeff) > 2.5


def test_steps_of_zero_stay() -> None:
    terms, state = Normalizer().apply([Term(0, (0.0,))], Normalizer().init())
    assert terms == [Term(0, (0.0,))]
    assert state[0] == 0
    (term,), _ = Normalizer(clip=math.inf).apply([Term(0, (7.0,))], state)
    assert math.isfinite(term.coeff[0])
    assert Normalizer().apply([], Normalizer().init())[0] == []


def test_the_input_is_not_changed() -> None:
    terms = private(1.0, 2.0)
    Normalizer().apply(terms, (0.0, 0.0))
    assert terms == private(1.0, 2.0)


@pytest.mark.parametrize(
    "options", [{"decay": 1.0}, {"decay": -0.1}, {"decay": math.nan}, {"clip": 0.0}, {"clip": -1.0},
                {"clip": math.nan}]
)  # fmt: skip
def test_unfit_settings_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must be"):
        Normalizer(**options)
