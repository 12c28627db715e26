"""Models that cannot be cut say what stands in the way, before a weight is read."""

from __future__ import annotations

import pytest
import transformers

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.export import ExportConfig, export_bundle
from tests.export.tiny_models import HIDDEN, VOCAB, save

SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SHORT = {"vocab_size": VOCAB, "hidden_size": HIDDEN}

REFUSED = {
    "albert": (
        lambda: transformers.AlbertForMaskedLM(
            transformers.AlbertConfig(**SIZES, embedding_size=32)
        ),
        r"block 0 runs some of its layers more than once",
    ),
    "llama4_text": (
        lambda: transformers.Llama4ForCausalLM(
            transformers.Llama4TextConfig(
                **SIZES,
                num_key_value_heads=2,
                head_dim=16,
                num_local_experts=2,
                attention_chunk_size=8,
            )
        ),
        r"cannot be traced: GuardOnDataDependent",  # its chunks start where a text starts
    ),
    "gemma3n_text": (  # its states are several per token
        lambda: transformers.Gemma3nForCausalLM(
            transformers.Gemma3nTextConfig(
                **SIZES | {"num_hidden_layers": 4},
                num_key_value_heads=2,
                head_dim=16,
                layer_types=["sliding_attention", "full_attention"] * 2,
                vocab_size_per_layer_input=VOCAB,
                hidden_size_per_layer_input=8,
                laurel_rank=4,
                altup_num_inputs=2,
                num_kv_shared_layers=0,
                activation_sparsity_pattern=[0.0] * 4,
            )
        ),
        r"layer 'model\.layers\.\d' passes on",
    ),
    "gemma4-shared": (  # a layer takes keys and values of another one
        lambda: transformers.Gemma4ForCausalLM(
            transformers.Gemma4TextConfig(
                **SIZES | {"num_hidden_layers": 4},
                num_key_value_heads=2,
                head_dim=16,
                global_head_dim=16,
                layer_types=["sliding_attention", "full_attention"] * 2,
                vocab_size_per_layer_input=VOCAB,
                hidden_size_per_layer_input=8,
                num_kv_shared_layers=2,
            )
        ),
        r"layer 'model\.layers\.\d' passes on",
    ),
    "mamba": (
        lambda: transformers.MambaForCausalLM(
            transformers.MambaConfig(**SHORT, num_hidden_layers=2)
        ),
        r"architecture 'mamba' \(MambaForCausalLM\) cannot be traced: \w+: \S",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    make, message = REFUSED[name]
    folder = save(make(), tmp_path / "model")
    config = ExportConfig(quant="fp32")
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        export_bundle(str(folder), tmp_path / "bundle", config)
    assert "\x1b" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
