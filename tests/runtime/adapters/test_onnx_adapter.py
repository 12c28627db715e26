"""What onnxruntime's adapters hold: (in, rank) and (rank, out), with the scale in B."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgezo_runtime.adapters.lora_factors import lora_factors
from edgezo_runtime.adapters.onnx_adapter import (
    adapters_of_onnxruntime,
    onnx_tensors,
    save_onnx_adapter,
)
from edgezo_runtime.bundle.trainables import SchemeInfo
from edgezo_runtime.errors import UsageError
from tests.runtime.small_adapters import LORA, LORA_SHAPES, small_adapter


def test_the_product_has_the_scale() -> None:
    adapter = small_adapter(LORA, LORA_SHAPES)
    tensors = onnx_tensors(adapter)
    assert len(tensors) == len(adapter.tensors)
    for one in lora_factors(adapter):
        a, b = (tensors[f"{one.module}.lora_{half}.weight"] for half in "AB")
        np.testing.assert_allclose(a @ b, one.scale * (one.b @ one.a).T, rtol=1e-5, atol=1e-6)
        assert a.flags.c_contiguous
        assert b.flags.c_contiguous


def test_onnxruntime_reads_the_file(tmp_path: Path) -> None:
    adapter, path = small_adapter(LORA, LORA_SHAPES), tmp_path / "a.onnx_adapter"
    save_onnx_adapter(adapter, path)
    found = adapters_of_onnxruntime().AdapterFormat.read_adapter(str(path)).get_parameters()
    for name, value in onnx_tensors(adapter).items():
        np.testing.assert_array_equal(found[name].numpy(), value)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot store ia3 trainables"):
        onnx_tensors(small_adapter(SchemeInfo("ia3"), {"layers.0.q.input_gain": (8,)}))
