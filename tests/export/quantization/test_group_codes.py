"""4-bit codes in groups: their levels, their bytes, and how near they come to the weights."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.quantization.group_codes import (
    GroupCodes,
    best_multipliers,
    channel_scales,
    group_size_of,
    levels_of,
    round_groups,
    round_groups_8bit,
)

SIZE = 32


def gaussian(rows: int = 48, width: int = 128) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)


def meant(codes: GroupCodes) -> np.ndarray:
    return codes.levels() * codes.scales[:, None]


def test_every_level_fits_8_bits():
    codes, multipliers = np.meshgrid(np.arange(-8, 8), np.arange(-127, 128))
    exact = codes * multipliers / 8
    assert np.array_equal(levels_of(codes, multipliers), np.round(exact).astype(np.int8))
    assert np.abs(exact).max() == 127


def test_bytes_are_those_of_4_bit_kernels():
    """Two codes per byte, the first in the low half, 8 for 0."""
    codes = np.array([[-8, 7, 0, -1]], np.int8)
    packed = GroupCodes(codes, np.ones((1, 1), np.int8), np.ones(1, np.float32)).packed()
    assert packed.tolist() == [[0xF0, 0x78]]


@pytest.mark.parametrize(
    ("width", "wanted", "size"),
    [(4096, 32, 32), (4096, 128, 128), (576, 128, 64), (48, 32, 16), (40, 32, None)],
)
def test_size_of_a_group(width, wanted, size):
    assert group_size_of(width, wanted) == size


def q4_0(weights: np.ndarray) -> np.ndarray:
    """Rounding as llama.cpp's Q4_0 does, with a scale of full precision."""
    groups = weights.reshape(len(weights), -1, SIZE)
    place = np.abs(groups).argmax(-1)[..., None]
    step = np.take_along_axis(groups, place, -1) / -8
    codes = np.clip(np.floor(groups / step + 8.5), 0, 15) - 8
    return (codes * step).reshape(weights.shape)


def test_rounding_is_nearer_than_q4_0():
    weights = gaussian()
    found, plain = meant(round_groups(weights, SIZE)), q4_0(weights)
    assert np.square(found - weights).sum() < 0.95 * np.square(plain - weights).sum()


@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e30])
def test_rounding_does_not_depend_on_the_unit(factor):
    weights = gaussian()
    plain = round_groups(weights, SIZE)
    scaled = round_groups(weights * np.float32(factor), SIZE)
    assert np.mean(plain.codes == scaled.codes) > 0.999


def test_rows_and_groups_of_zeros():
    weights = gaussian(4, 64)
    weights[1] = 0
    weights[2, :SIZE] = 0
    found = meant(round_groups(weights, SIZE))
    assert not found[1].any()
    assert not found[2, :SIZE].any()
    assert found[2, SIZE:].any()


def test_multipliers_are_the_best_of_those_tried():
    group = gaussian(SIZE, 200)
    scales = channel_scales(group.T)
    chosen = best_multipliers(group / scales).astype(np.float32)

    def error(multipliers: np.ndarray) -> np.ndarray:
        codes = np.clip(np.rint(group / scales / (multipliers / 8)), -8, 7)
        return np.square(group - np.rint(codes * multipliers / 8) * scales).sum(axis=0)

    largest = group[np.abs(group).argmax(axis=0), np.arange(200)]
    for end in (-8, 7):
        simple = np.clip(np.rint(largest / scales * 8 / end), -127, 127)
        assert (error(chosen) <= error(simple) + 1e-5).all()


def test_8_bits_in_groups():
    weights = gaussian()
    codes, scales = round_groups_8bit(weights, SIZE)
    assert codes.dtype == np.uint8
    assert scales.shape == (48, 4)
    found = (codes.astype(np.float32) - 128) * np.repeat(scales, SIZE, axis=1)
    largest = np.abs(weights.reshape(48, 4, SIZE)).max(-1).repeat(SIZE, axis=1)
    assert (np.abs(found - weights) <= largest / 254 * 1.001).all()
