"""Perturbed copies are theta + scale * z, by the noise itself."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.engine.perturbed import PerturbedParams
from edgezo_runtime.methods.estimators import Probe
from edgezo_runtime.noise import noise
from tests.runtime.dense_directions import DenseDirections, dense_params

THETA = {
    name: np.random.default_rng(number).normal(size=(3, 4)).astype(np.float32)
    for number, name in enumerate("abc")
}
ACTIVE = {"a": 0, "b": 1}
ROW_EXAMPLE = np.array([0, 0, 1, 1])
ROWS = np.array([1, 2, 3, 3])


def z(seed: int, name: str, row: int = 0) -> np.ndarray:
    return noise(seed, name, (3, 4), kind="rademacher", row=row)


def test_probes_of_a_batch_share_their_direction() -> None:
    params = dense_params(THETA, ACTIVE, [Probe(7, 0.5), Probe(7, -0.5)], ROW_EXAMPLE)
    assert not params.private
    found = params.copies("a", ROWS)
    expected = [THETA["a"] + np.float32(scale) * z(7, "a") for scale in (0.5, -0.5)]
    np.testing.assert_array_equal(found, expected)


def test_private_probes_have_a_direction_per_example() -> None:
    probes = [Probe(7, 0.5, private=True), Probe(8, 0.25, private=True)]
    params = dense_params(THETA, ACTIVE, probes, ROW_EXAMPLE)
    assert params.private
    found = params.copies("b", ROWS)
    expected = [
        THETA["b"] + np.float32(probe.scale) * z(probe.seed, "b", int(ROW_EXAMPLE[row]))
        for probe in probes
        for row in ROWS
    ]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["c", "a"])
def test_what_no_probe_moves_is_one_view(name: str) -> None:
    params = dense_params(THETA, ACTIVE, [Probe(7, 0.5, blocks=(1,))], ROW_EXAMPLE)
    found = params.copies(name, ROWS)
    assert found.shape == (1, 3, 4)
    assert np.shares_memory(found, THETA[name])


def test_a_probe_that_does_not_move_is_theta() -> None:
    probes = [Probe(3, 0.0), Probe(7, 0.5), Probe(9, 0.5, blocks=(1,))]
    found = dense_params(THETA, ACTIVE, probes, ROW_EXAMPLE).copies("a", ROWS)
    np.testing.assert_array_equal(found[0], THETA["a"])
    np.testing.assert_array_equal(found[1], THETA["a"] + np.float32(0.5) * z(7, "a"))
    np.testing.assert_array_equal(found[2], THETA["a"])


def test_anchored_probes_are_around_the_anchor() -> None:
    class Anchored(DenseDirections):
        def base(self, name: str, *, anchored: bool) -> np.ndarray:
            return THETA[name] + 10 if anchored else THETA[name]

    probes = [Probe(7, 0.5), Probe(7, 0.5, anchored=True)]
    params = PerturbedParams(THETA, ACTIVE, Anchored(THETA), probes, ROW_EXAMPLE, "rademacher")
    found = params.copies("a", ROWS)
    np.testing.assert_array_equal(found[1], THETA["a"] + 10 + np.float32(0.5) * z(7, "a"))
    assert (found[0] != found[1]).all()
