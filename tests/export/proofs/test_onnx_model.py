"""A bundle assembled into one model, and an adapter file that fills its inputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_export.proofs.onnx_model import onnx_scores
from edgezo_runtime.adapters.adapter import make_adapter
from edgezo_runtime.adapters.onnx_adapter import save_onnx_adapter
from edgezo_runtime.bundle.manifest import SchemeInfo
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.errors import EdgezoError, UsageError
from edgezo_runtime.evaluation.parity import draw_sample, own_scores


def test_scores_are_those_of_the_engine(bundle, tmp_path):
    generator = np.random.default_rng(0)
    tensors = {
        name: value + generator.normal(0, 0.1, value.shape).astype(np.float32)
        for name, value in bundle.trainables().items()
    }
    adapter = make_adapter(tmp_path / "a", bundle, tensors, steps=1, created_by="test", scope="all")
    path = tmp_path / "a.onnx_adapter"
    save_onnx_adapter(adapter, path)
    sample = draw_sample(adapter, bundle.manifest.model.vocab_size)
    found = onnx_scores(bundle, path, sample)
    own = own_scores(Engine(bundle), adapter.params(bundle), bundle.trainables(), sample)
    np.testing.assert_allclose(found.plain, own.plain, atol=1e-4)
    np.testing.assert_allclose(found.tuned, own.tuned, atol=1e-4)
    assert np.abs(found.tuned - found.plain).max() > 1e-2
    path.write_bytes(b"no adapter")
    with pytest.raises(EdgezoError, match="onnxruntime refuses it"):
        onnx_scores(bundle, path, sample)


def test_a_bundle_of_another_kind_is_refused(bundle, tmp_path):
    other = dataclasses.replace(bundle.manifest, scheme=SchemeInfo("ia3", ("k_proj",)))
    odd = dataclasses.replace(bundle, manifest=other)
    with pytest.raises(UsageError, match="no inputs for low-rank factors"):
        onnx_scores(odd, tmp_path / "a", None)
