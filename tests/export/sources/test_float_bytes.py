"""Floats as files store them, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.sources.float_bytes import FLOATS, float_bytes

TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_are_rounded_as_torch_rounds_them(dtype):
    values = np.random.default_rng(0).normal(0, 3, 4000).astype(np.float32)
    values[:4] = [0.0, -0.0, np.inf, -np.inf]
    stored = float_bytes(values, dtype)
    assert len(stored) == FLOATS[dtype] * len(values)
    expected = torch.tensor(values).to(TYPES[dtype])
    assert stored == expected.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(("dtype", "value"), [("F16", 7e4), ("BF16", 3.4e38)])
def test_numbers_beyond_a_type_are_refused(dtype, value):
    with pytest.raises(OverflowError, match="is beyond"):
        float_bytes(np.array([1.0, value], np.float32), dtype)
