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
    "bloom": (
        lambda: transformers.BloomForCausalLM(
            transformers.BloomConfig(**SHORT, n_layer=2, n_head=4)
        ),
        r"block 0: its class computes attention itself",
    ),
    "lfm2": (  # one of its layers is a convolution
        lambda: transformers.Lfm2ForCausalLM(
            transformers.Lfm2Config(
                **SIZES, num_key_value_heads=2, layer_types=["conv", "full_attention"]
            )
        ),
        r"block 0: its class computes attention itself, or something else",
    ),
    "gpt_oss": (
        lambda: transformers.GptOssForCausalLM(
            transformers.GptOssConfig(
                **SIZES, num_key_value_heads=2, head_dim=16, num_local_experts=2
            )
        ),
        r"attention with s_aux",
    ),
    "albert": (
        lambda: transformers.AlbertForMaskedLM(
            transformers.AlbertConfig(**SIZES, embedding_size=32)
        ),
        r"block 0 runs some of its layers more than once",
    ),
    "deberta-v2": (
        lambda: transformers.DebertaV2ForMaskedLM(
            transformers.DebertaV2Config(
                **SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"]
            )
        ),
        r"layer 'deberta\.encoder\.layer\.0' passes on .*; it must pass on exactly one tensor",
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
    "qwen3_moe": (
        lambda: transformers.Qwen3MoeForCausalLM(
            transformers.Qwen3MoeConfig(
                **SIZES,
                num_key_value_heads=2,
                head_dim=16,
                num_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=32,
            )
        ),
        r"architecture 'qwen3_moe' \(Qwen3MoeForCausalLM\) cannot be traced: \w+: \S",
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
