"""Steps of methods that do more than follow a slope, on a quadratic loss."""

import numpy as np
import pytest

from edgezo_runtime.methods.estimators import Term
from tests.contract.methods_table import config_of
from tests.contract.quadratic_run import DIMS, Float64, Quadratic, QuadraticRun, joined

TARGET = Quadratic(np.linspace(0.5, 3, DIMS), np.ones(DIMS), 0.3)


def test_conservative_never_climbs() -> None:
    """On its own batch, at a rate at which MeZO climbs at times."""
    losses = {}
    for method in ("zo-sgd", "zo-sgd-cons"):
        run = QuadraticRun(config_of(method, lr=0.03), TARGET)
        found = [float(TARGET.losses(run.x[None]).mean())]
        for _ in range(40):
            run.step()
            found.append(float(TARGET.losses(run.x[None]).mean()))
        losses[method] = np.diff(found)
    assert (losses["zo-sgd"] > 0).any()
    # the losses are recorded in float32
    assert (losses["zo-sgd-cons"] < 1e-5).all()
    assert (losses["zo-sgd-cons"] < -1e-3).any()


# --- signs ---


@pytest.mark.parametrize("sign", ["elementwise", "scalar"])
def test_sign_steps_are_of_equal_length(sign: str) -> None:
    run = QuadraticRun(config_of("zo-sgd-sign", lr=0.125, sign=sign), TARGET)
    plain = QuadraticRun(config_of("zo-sgd", lr=0.125), TARGET)
    for _ in range(5):
        plain.state.theta = {name: value.copy() for name, value in run.state.theta.items()}
        plain.state.step = run.state.step
        info, before = plain.info(), run.x
        g = plain.gradient(info, plain.estimate(info)[1])
        run.step()
        moved = (before - run.x) / 0.125
        if sign == "elementwise":
            np.testing.assert_allclose(moved, np.sign(g), atol=1e-5)
        else:  # z itself: g over the projected gradient's size
            slope = abs(plain.estimate(info)[1][0].coeff[0])
            np.testing.assert_allclose(moved, g / slope, atol=1e-4)


# --- anchors ---


def test_svrg_steps_by_the_difference_and_what_it_keeps() -> None:
    run = QuadraticRun(config_of("mezo-svrg", anchor_every=3, anchor_lr=4.0, lr=0.0078125), TARGET)
    kept: Float64 = np.zeros(DIMS)
    anchor = run.x
    for step in range(7):
        info, before = run.info(), run.x
        losses, terms = run.estimate(info)
        g = run.gradient(info, terms)
        run.state.apply(run.record(info, losses), terms)
        moved = (before - run.x) / run.lr
        if step % 3 == 0:
            kept, anchor = g, before
            np.testing.assert_allclose(moved, 4.0 * g, rtol=1e-4, atol=1e-4)
        else:
            np.testing.assert_allclose(moved, g + kept, rtol=1e-4, atol=1e-4)
        slots = {name: (slot or {})["anchor"] for name, slot in run.state.slots.items()}
        np.testing.assert_array_equal(joined(slots), anchor)


# --- curvature ---


def test_hizoo_moves_its_diagonal_by_what_it_saw() -> None:
    """H <- (1 - s) H + s |z' L'' z| / 2 * H n^2 with z' L'' z from the target itself."""
    run = QuadraticRun(config_of("hizoo", smoothing=0.1, eps=0.5), TARGET)
    for _ in range(4):
        info = run.info()
        losses, terms = run.estimate(info)
        slots = run.state.sampler_slots
        before = joined({name: (slots[name] or {})["curvature"] for name in slots})
        (term,) = terms
        z = run.gradient(info, [Term(term.seed, (1.0,))])
        noise = z * np.sqrt(before)
        along = float((TARGET.curvature * z**2).sum())
        assert term.curvature == pytest.approx(along, rel=1e-4)
        run.state.apply(run.record(info, losses), terms)
        after = joined({name: (slots[name] or {})["curvature"] for name in slots})
        expected = 0.9 * before + 0.1 * min(along / 2, 100) * before * noise**2
        np.testing.assert_allclose(after, np.clip(expected, 1e-4, 1e4), rtol=1e-3)


def test_hizoo_without_smoothing_is_mezo() -> None:
    """As the published script runs it."""
    runs = [
        QuadraticRun(config_of(method, lr=0.01, **given), TARGET)
        for method, given in (("hizoo", {"smoothing": 0.0}), ("zo-sgd", {}))
    ]
    for _ in range(5):
        for run in runs:
            run.step()
    np.testing.assert_array_equal(runs[0].x, runs[1].x)
