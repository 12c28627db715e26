"""Gradients in the journal: rounded to 8 bits, in the shapes they had, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.errors import RunFileError
from edgezo_runtime.training.gradient_codec import GradientCodec

SHAPES = {"b": (3, 5), "a": (4,), "zero": (2, 1)}


def gradient() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    found = {n: generator.normal(0, 1e-3, s).astype(np.float32) for n, s in SHAPES.items()}
    found["zero"][:] = 0
    return found


def test_it_rounds_to_255_levels_of_each_tensor():
    codec, given = GradientCodec(SHAPES), gradient()
    data = codec.pack(given)
    assert len(data) == codec.nbytes == 15 + 4 + 2 + 3 * 4
    found = codec.unpack(data)
    for name, value in given.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == value.shape
        step = np.abs(value).max() / 127
        assert np.abs(found[name] - value).max() <= step * 0.5001
        assert np.abs(found[name]).max() == pytest.approx(np.abs(value).max())
    assert codec.pack(found) == data  # what is rounded stays as it is


def test_tensors_are_packed_in_the_order_of_the_codec():
    given = gradient()
    shuffled = dict(reversed(given.items()))
    assert GradientCodec(SHAPES).pack(shuffled) == GradientCodec(SHAPES).pack(given)


def test_other_bytes_are_refused():
    codec = GradientCodec(SHAPES)
    with pytest.raises(RunFileError, match="3 bytes in the journal, expected 33"):
        codec.unpack(b"abc")
    data = bytearray(codec.pack(gradient()))
    data[:4] = np.float32(np.nan).tobytes()
    with pytest.raises(RunFileError, match="'b' is not finite"):
        codec.unpack(bytes(data))
