"""Inputs without their mean: by hand, and what is left of gradients."""

from __future__ import annotations

import numpy as np

from edgezo_runtime.training.feedback_inputs import (
    SHARE,
    input_size,
    lessened,
    mean_inputs,
    unit_vectors,
)


def test_means_and_their_directions():
    means = mean_inputs({"a": np.array([[3.0, 2.0], [3.0, 6.0]], np.float32)})
    assert means["a"].tolist() == [3.0, 4.0]
    units = unit_vectors(means | {"b": np.zeros(2, np.float32)})
    np.testing.assert_allclose(units["a"], [0.6, 0.8], rtol=1e-6)
    assert units["b"].tolist() == [0.0, 0.0]
    assert units["a"].dtype == np.float32


def test_a_share_is_left_along_the_mean_and_all_across_it():
    unit = np.array([0.6, 0.8], np.float32)
    found = lessened(np.array([[6.0, 8.0], [-0.8, 0.6], [2.0, 1.0]], np.float32), unit)
    assert found.dtype == np.float32
    across = np.array([2.0, 1.0]) - 2.0 * unit
    expected = [10 * SHARE * unit, [-0.8, 0.6], across + 2.0 * SHARE * unit]
    np.testing.assert_allclose(found, np.array(expected), atol=1e-6)
    rows = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(lessened(rows, np.zeros(2, np.float32)), rows)


def test_no_gradient_turns_uphill():
    generator = np.random.default_rng(0)
    unit = unit_vectors({"a": generator.normal(1, 1, 9).astype(np.float32)})["a"]
    rows = generator.normal(0, 1, (50, 9)).astype(np.float32)
    along = (rows * lessened(rows, unit)).sum(axis=1)
    assert (along > 0).all()


def test_the_size_is_that_of_what_is_left():
    unit = np.array([1.0, 0.0], np.float32)
    x = np.array([[10.0, 2.0], [-20.0, 4.0]], np.float32)
    np.testing.assert_allclose(input_size(x, unit), (1 + 2 + 2 + 4) / 2, rtol=1e-6)
