"""Norms behind the layers of sites: packed slopes, and changes that they would make small."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.errors import DivergedError, RunFileError
from edgezo_runtime.training.feedback_sites import FeedbackSite
from edgezo_runtime.training.feedback_slopes import SlopeCodec, reached, undone

SITES = tuple(
    FeedbackSite(block, "input.x", f"{block}.A", f"{block}.B", (2, 5), (4, 2), slope=slope)
    for block, slope in enumerate(("slope.x", None, "slope.x"))
)


def test_means_come_back_with_all_their_bits():
    rows = np.random.default_rng(0).lognormal(0, 4, (3, 4)).astype(np.float32)
    codec = SlopeCodec(SITES)
    packed = codec.pack({"0.B": rows, "2.B": -rows})
    assert len(packed) == codec.nbytes == 2 * 4 * 4
    found = codec.unpack(packed)
    mean = rows.astype(np.float64).mean(axis=0).astype(np.float32)
    assert found.keys() == {"0.B", "2.B"}
    np.testing.assert_array_equal(found["0.B"], mean)
    np.testing.assert_array_equal(found["2.B"], -mean)


def test_sites_without_norms_take_no_bytes():
    codec = SlopeCodec(SITES[1:2])
    assert (codec.nbytes, codec.pack({}), codec.unpack(b"")) == (0, b"", {})


def test_damaged_slopes_are_refused():
    codec = SlopeCodec(SITES)
    with pytest.raises(RunFileError, match="have 8 bytes, expected 32"):
        codec.unpack(bytes(8))
    with pytest.raises(RunFileError, match="not finite"):
        codec.unpack(np.full(8, np.inf, "<f4").tobytes())
    with pytest.raises(DivergedError, match="let no change through"):
        undone(np.array([0, 0, 0, 1], np.float32))


def test_large_slopes_are_undone_and_small_ones_stay_bounded():
    """By hand: d / (d^2 + c^2) with c = 2; the sign of d turns the change."""
    factors, share = undone(np.array([200.0, 2.0, -2.0, 0.0, 0.02], np.float32))
    np.testing.assert_allclose(factors[1:4], [0.25, -0.25, 0.0])
    np.testing.assert_allclose(share[:4], [0.9999, 0.5, 0.5, 0.0], atol=1e-5)
    assert np.abs(factors).max() <= 0.25
    values = np.array([2.0, 1.0, 1.0, 5.0, 0.0], np.float32)
    assert reached(values, share) == pytest.approx((4 * 0.9999 + 1) / 31, rel=1e-4)
