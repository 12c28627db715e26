"""Rows for tokens that a model has no embedding for."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.sources import grown_vocabulary
from edgezo_export.sources.grown_vocabulary import GrownVocabulary
from edgezo_export.sources.parameter_names import vocabulary_parameters
from tests.export.planned_weights import Arrays
from tests.export.tiny_models import TINY

OLD = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
BIAS = np.arange(5, dtype=np.float32)


@pytest.mark.parametrize("chunk", [2 << 20, 6], ids=["whole", "chunks"])
def test_new_rows_are_the_mean_or_zeros(monkeypatch, chunk):
    monkeypatch.setattr(grown_vocabulary, "_CHUNK", chunk)
    stored = Arrays({"embed": OLD, "bias": BIAS, "zeros": BIAS, "other": OLD})
    grown = GrownVocabulary(stored, {"embed", "bias", "zeros"}, 8, {"zeros"})
    expected = {
        "embed": np.concatenate([OLD, np.tile(OLD.mean(0), (3, 1))]),
        "bias": np.concatenate([BIAS, [2, 2, 2]]),
        "zeros": np.concatenate([BIAS, [0, 0, 0]]),
        "other": OLD,
    }
    assert grown.names() == list(expected)
    for name, values in expected.items():
        assert grown.shape(name) == values.shape
        np.testing.assert_allclose(grown.read(name), values, rtol=1e-6)
        for start in range(len(values)):
            for stop in range(start, len(values) + 1):
                rows = grown.read_rows(name, start, stop)
                np.testing.assert_allclose(rows, values[start:stop], rtol=1e-6)
                assert rows.dtype == np.float32


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "bert", "electra", "opt-projected", "phi"])
def test_the_parameters_that_grow_are_those_that_transformers_resizes(name):
    model = TINY[name].make()
    found = vocabulary_parameters(model.config, type(model))
    named = dict(model.named_parameters(remove_duplicate=False))
    before = {key: tuple(value.shape) for key, value in named.items()}
    model.resize_token_embeddings(model.config.vocab_size + 3, mean_resizing=False)
    after = dict(model.named_parameters(remove_duplicate=False))
    assert found == [key for key, shape in before.items() if tuple(after[key].shape) != shape]
