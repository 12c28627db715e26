"""Keys and values that the graphs of a bundle compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgezo_export.export import ExportConfig, export_bundle
from edgezo_export.schemes.prefix import Prefix
from edgezo_export.schemes.prefix_states import KeysValues
from edgezo_runtime.bundle.bundle import Bundle


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_keys_and_values_are_those_of_the_model(exported, tmp_path, name):
    case = exported(name)
    config = ExportConfig(quant="fp32", scheme=Prefix(virtual_tokens=3))
    manifest = export_bundle(str(case.folder), tmp_path / "b", config)
    tokens = manifest.scheme.tokens
    states = KeysValues(tmp_path / "b", manifest.graphs)
    with torch.inference_mode():
        out = case.model(input_ids=torch.tensor([tokens]), use_cache=True)
    written = Bundle.open(tmp_path / "b").trainables()
    for block, layer in enumerate(out.past_key_values.layers):
        found = states.of(block, tokens)
        for own, expected, kind in zip(found, (layer.keys, layer.values), "kv", strict=True):
            np.testing.assert_allclose(own, expected[0].numpy(), atol=1e-5)
            role = {"k": "prefix_key", "v": "prefix_value"}[kind]
            np.testing.assert_array_equal(written[f"{case.kind.layers}.{block}.{role}"], own)
    assert states.of(1, tokens)[0] is states.of(1, tokens)[0]  # computed once
