"""Rounding with corrections, against the textbook's elimination in float64."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.quantization import error_compensation
from edgezo_export.quantization.error_compensation import DAMPING, Moments, compensated_groups
from edgezo_export.quantization.group_codes import (
    GroupCodes,
    best_multipliers,
    channel_scales,
    round_groups,
)

SIZE = 16


def correlated(rows: int, width: int) -> np.ndarray:
    """Rows whose columns depend on each other."""
    generator = np.random.default_rng(1)
    mix = generator.standard_normal((width // 2, width))
    noise = 0.3 * generator.standard_normal((rows, width))
    return (generator.standard_normal((rows, width // 2)) @ mix + noise).astype(np.float32)


def weights(rows: int, width: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((rows, width)).astype(np.float32)


def output_error(codes: GroupCodes, w: np.ndarray, x: np.ndarray) -> float:
    return float(np.square(x @ (codes.levels() * codes.scales[:, None] - w).T).sum())


def by_elimination(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Optimal brain surgeon, input by input: the inverse of what is left is updated each time."""
    moments = x.astype(np.float64).T @ x
    moments += DAMPING * np.diag(moments).mean() * np.eye(len(moments))
    inverse = np.linalg.inv(moments)
    scales = channel_scales(w)
    left = w.astype(np.float64).copy()
    codes = np.empty(w.shape, np.int8)
    for i in range(w.shape[1]):
        if i % SIZE == 0:
            group = np.ascontiguousarray((left[:, i : i + SIZE] / scales[:, None]).T, np.float32)
            own = best_multipliers(group).astype(np.float64)
        code = np.clip(np.rint(left[:, i] / scales / (own / 8)), -8, 7)
        codes[:, i] = code
        error = left[:, i] - np.rint(code * own / 8) * scales
        left[:, i:] -= error[:, None] * inverse[i, i:] / inverse[i, i]
        inverse -= np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    return codes


def test_codes_are_those_of_elimination():
    x, w = correlated(400, 48), weights(10, 48)
    moments = Moments(48)
    moments.add(x[:150])
    moments.add(x[150:])
    found = compensated_groups(w, SIZE, moments.factors())
    # float32 against float64 tips a rounding, and that error is then corrected
    assert np.mean(found.codes == by_elimination(w, x)) > 0.98


def test_the_output_comes_nearer_than_by_rounding():
    x, w = correlated(400, 64), weights(24, 64)
    moments = Moments(64)
    moments.add(x)
    found = compensated_groups(w, SIZE, moments.factors())
    unseen = correlated(100, 64)
    for rows in (x, unseen):
        assert output_error(found, w, rows) < 0.5 * output_error(round_groups(w, SIZE), w, rows)


def test_parts_do_not_see_each_other():
    x, w = correlated(400, 64), weights(6, 64)
    w[:, 40] = 5  # the largest, so that the scales are those of the second part
    moments = Moments(64, part=32)
    moments.add(x)
    found = compensated_groups(w, SIZE, moments.factors())
    own = Moments(32)
    own.add(np.ascontiguousarray(x[:, 32:]))
    part = compensated_groups(np.ascontiguousarray(w[:, 32:]), SIZE, own.factors())
    assert np.mean(found.codes[:, 32:] == part.codes) > 0.99
    assert [factor.start for factor in moments.factors()] == [0, 32]


def test_without_rows_the_codes_are_the_nearest():
    w = weights(8, 32)
    found = compensated_groups(w, SIZE, Moments(32).factors())
    nearest = round_groups(w, SIZE)
    assert np.array_equal(found.multipliers, nearest.multipliers)
    assert np.mean(found.codes == nearest.codes) > 0.999


def test_an_input_that_is_never_read_does_no_harm():
    x, w = correlated(100, 32), weights(8, 32)
    x[:, 5] = 0
    moments = Moments(32)
    moments.add(x)
    found = compensated_groups(w, SIZE, moments.factors())
    assert np.isfinite(output_error(found, w, x))


@pytest.mark.parametrize("rows", [1, 7])
def test_fewer_rows_than_inputs(rows):
    x, w = correlated(rows, 32), weights(8, 32)
    moments = Moments(32)
    moments.add(x)
    found = compensated_groups(w, SIZE, moments.factors())
    assert output_error(found, w, x) < output_error(round_groups(w, SIZE), w, x)


def test_a_part_holds_whole_groups():
    assert error_compensation.PART % 128 == 0
