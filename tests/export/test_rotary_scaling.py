"""Every kind of rotary scaling that transformers knows, against its logits, short and long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.export import ExportConfig, export_bundle
from edgezo_export.trace.trace import trace_model
from tests.export.bundle_runner import BundleRunner
from tests.export.log_prob_parity import own_log_probs, torch_log_probs
from tests.export.tiny_models import MAX_SEQ, VOCAB, randomize, save

ORIGINAL = 16
_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_SEQ,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def factors(width: int) -> dict[str, Any]:
    """Of longrope, for `width` numbers that are turned per head."""
    steps = range(width // 2)
    return {
        "rope_type": "longrope",
        "short_factor": [1.0 + 0.1 * step for step in steps],
        "long_factor": [2.0 + 0.7 * step for step in steps],
    }


SCALINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "longrope": factors(16) | {"factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
    },
    "proportional": {"partial_rotary_factor": 0.5},
}


def llama(**scaling: Any) -> transformers.PreTrainedModel:
    parameters = {"rope_theta": 100.0} | scaling
    config = transformers.LlamaConfig(**_SIZES, rope_parameters=parameters)
    return transformers.LlamaForCausalLM(config).eval()


def phi3(partial: float) -> transformers.PreTrainedModel:
    """As Phi-3.5-mini (the whole of every head is turned) and Phi-4-mini (three quarters)."""
    config = transformers.Phi3Config(
        **_SIZES,
        original_max_position_embeddings=ORIGINAL,
        partial_rotary_factor=partial,
        rope_scaling={"type": "su", **factors(int(16 * partial)), "rope_type": "longrope"},
    )
    return transformers.Phi3ForCausalLM(config).eval()


def gemma3() -> transformers.PreTrainedModel:
    """Its layers have scalings of their own."""
    scaled = factors(16) | {"original_max_position_embeddings": ORIGINAL, "factor": 4.0}
    config = transformers.Gemma3TextConfig(
        **_SIZES | {"num_hidden_layers": 2},
        head_dim=16,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_theta": 1000.0} | scaled,
        },
    )
    return transformers.Gemma3ForCausalLM(config).eval()


def check(model: transformers.PreTrainedModel, place, quant: str = "fp32") -> BundleRunner:
    """Compare the log-probabilities of rows of many lengths; return the bundle."""
    randomize(model)
    told: list[str] = []
    folder = save(model, place / "model")
    export_bundle(str(folder), place / "b", ExportConfig(quant=quant), warn=told.append)
    runner = BundleRunner(place / "b")
    for length in (3, ORIGINAL - 1, ORIGINAL, ORIGINAL + 1, 40, MAX_SEQ):
        ids = np.random.default_rng(length).integers(4, VOCAB, length).tolist()
        expected = torch_log_probs(model, ids)
        np.testing.assert_allclose(own_log_probs(runner, ids), expected, atol=3e-5)
    return runner


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCALINGS)
def test_every_kind_of_scaling(tmp_path, kind):
    runner = check(llama(**{"rope_type": kind} | SCALINGS[kind]), tmp_path)
    model = runner.manifest.model
    assert model.rotary_switch == (ORIGINAL if kind == "longrope" else None)
    assert model.max_seq == MAX_SEQ
    assert runner.manifest.graphs.continues


def test_no_kind_is_forgotten():
    assert set(SCALINGS) == {"default", *ROPE_INIT_FUNCTIONS}


@pytest.mark.slow
@pytest.mark.parametrize("partial", [1.0, 0.75])
def test_phi3(tmp_path, partial):
    runner = check(phi3(partial), tmp_path)
    assert runner.manifest.model.rotary_switch == ORIGINAL
    assert runner.manifest.graphs.continues is (partial == 1.0)


@pytest.mark.slow
def test_scalings_by_the_type_of_the_layer(tmp_path):
    assert check(gemma3(), tmp_path).manifest.model.rotary_switch == ORIGINAL


@pytest.mark.slow
def test_a_limit_of_dynamic_scaling_is_told(tmp_path):
    told: list[str] = []
    folder = save(llama(rope_type="dynamic", factor=2.0), tmp_path / "model")
    export_bundle(str(folder), tmp_path / "b", warn=told.append)
    assert len(told) == 1
    assert "(rope type dynamic) for sequences of more than 64 tokens" in told[0]


@pytest.mark.slow
def test_the_sets_are_those_of_transformers():
    model = llama(**SCALINGS["longrope"])
    found = trace_model(model.config, type(model), causal=True, max_seq=MAX_SEQ)
    sets = {
        name.rpartition(".")[2]: value
        for name, value in found.buffers.items()
        if name.endswith("inv_freq")
    }
    compute = ROPE_INIT_FUNCTIONS["longrope"]
    torch.testing.assert_close(sets["inv_freq"], compute(model.config)[0])
    torch.testing.assert_close(
        sets["edgezo_long_inv_freq"], compute(model.config, seq_len=ORIGINAL + 1)[0]
    )
    assert found.rotary_switch == ORIGINAL


@pytest.mark.slow
def test_a_switch_beyond_the_longest_row_is_none():
    model = llama(**SCALINGS["longrope"])
    short = trace_model(model.config, type(model), causal=True, max_seq=ORIGINAL)
    assert short.rotary_switch is None


@pytest.mark.slow
def test_layers_that_switch_at_different_lengths_are_refused():
    model = gemma3()
    config = model.config
    config.rope_parameters["sliding_attention"] = dict(config.rope_parameters["full_attention"])
    config.rope_parameters["sliding_attention"]["original_max_position_embeddings"] = 8
    with pytest.raises(UnsupportedModelError, match=r"different lengths: 8, 16 tokens"):
        trace_model(config, type(model), causal=True, max_seq=MAX_SEQ)
