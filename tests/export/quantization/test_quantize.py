"""Row quantization against torch's own per-channel quantizer and its error bound."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.quantization.quantize import NonFiniteWeightError, quantize_rows, to_unsigned


def random_rows(rows: int, width: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    spread = generator.lognormal(sigma=2, size=(rows, 1))
    return (generator.standard_normal((rows, width)) * spread).astype(np.float32)


def test_same_values_as_torch():
    weights = random_rows(64, 96)
    quantized, scales = quantize_rows(weights)
    zero_points = torch.zeros(64, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(
        torch.from_numpy(weights), torch.from_numpy(scales), zero_points, 0, -127, 127
    ).numpy()
    steps = np.rint((quantized * scales[:, None] - expected) / scales[:, None])
    # torch multiplies by the reciprocal: a value on the border may round to the other side
    assert np.abs(steps).max() <= 1
    assert np.mean(steps != 0) < 1e-3


def test_rounding_error_is_at_most_half_a_step():
    weights = random_rows(200, 33)
    quantized, scales = quantize_rows(weights)
    error = np.abs(quantized * scales[:, None] - weights)
    assert (error <= 0.5001 * scales[:, None]).all()
    assert np.abs(quantized).max(axis=1).tolist() == [127] * 200


@pytest.mark.parametrize("peak", [0.0, 1e-45, 1e-40, 1e-38, 3e38])
def test_extreme_rows(peak):
    weights = np.array([[peak, -peak, 0.0, peak / 2]], np.float32)
    quantized, scales = quantize_rows(weights)
    assert scales[0] > 0
    assert np.isfinite(scales).all()
    restored = quantized * scales[:, None]
    np.testing.assert_allclose(restored, weights, rtol=8e-3, atol=1.2e-38)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused(bad):
    weights = random_rows(3, 4)
    weights[1, 2] = bad
    with pytest.raises(NonFiniteWeightError, match="row 1"):
        quantize_rows(weights)


def test_unsigned_form():
    signed = np.arange(-127, 128, dtype=np.int8)
    np.testing.assert_array_equal(to_unsigned(signed), signed.astype(int) + 128)
    assert to_unsigned(signed).dtype == np.uint8


def test_clipping_the_range_does_not_pay():
    """Pins the measurement in the docstring: the plain range is (nearly) never beaten."""
    weights = np.random.default_rng(0).standard_normal((200, 576)).astype(np.float32)
    quantized, scales = quantize_rows(weights)
    plain = ((quantized * scales[:, None] - weights) ** 2).sum(axis=1)
    for clip in (0.95, 0.9, 0.85, 0.8):
        step = scales[:, None] * clip
        clipped = np.clip(np.rint(weights / step), -127, 127) * step
        assert (((clipped - weights) ** 2).sum(axis=1) >= plain).all()
