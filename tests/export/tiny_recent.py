"""Tiny models of recent architectures: experts, convolutions, state spaces, mixtures of layers."""

from __future__ import annotations

import transformers
from transformers import PretrainedConfig, PreTrainedModel

from tests.export.tiny_model import ALL, GROUPED, LAYERS, MAX_SEQ, SIZES, TinyModel

WINDOW = 8


def _decoder(config: PretrainedConfig) -> PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_config(config)


def _long_rope(width: int) -> dict[str, object]:
    steps = range(width // 2)
    return {
        "type": "longrope",
        "rope_type": "longrope",
        "short_factor": [1.0 + 0.1 * step for step in steps],
        "long_factor": [2.0 + 0.7 * step for step in steps],
    }


def _llama3() -> PreTrainedModel:
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 100.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    return _decoder(transformers.LlamaConfig(**GROUPED, rope_parameters=scaling))


def _ministral3() -> PreTrainedModel:
    scaling = {
        "rope_type": "yarn",
        "rope_theta": 100.0,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "max_position_embeddings": 16,
        "llama_4_scaling_beta": 0.1,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    }
    return _decoder(transformers.Ministral3Config(**GROUPED, head_dim=16, rope_parameters=scaling))


def _phi4_mini() -> PreTrainedModel:
    return _decoder(
        transformers.Phi3Config(
            **GROUPED | {"num_attention_heads": 2, "num_key_value_heads": 1},
            original_max_position_embeddings=MAX_SEQ
            // 2,  # rows that switch: test_rotary_scaling.py
            partial_rotary_factor=0.5,
            rope_scaling=_long_rope(16),
            sliding_window=None,
            tie_word_embeddings=True,
        )
    )


def _gemma4() -> PreTrainedModel:
    return _decoder(
        transformers.Gemma4TextConfig(
            **GROUPED,
            head_dim=16,
            global_head_dim=32,
            sliding_window=WINDOW,
            layer_types=["sliding_attention", "full_attention"],
            vocab_size_per_layer_input=97,
            hidden_size_per_layer_input=8,
            num_kv_shared_layers=0,
        )
    )


_MIXER = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
    "head_dim": 16,
}

RECENT: dict[str, TinyModel] = {
    "llama3": TinyModel(_llama3, LAYERS, ALL),
    "ministral": TinyModel(
        lambda: _decoder(
            transformers.MinistralConfig(
                **GROUPED,
                head_dim=16,
                sliding_window=WINDOW,
                layer_types=["sliding_attention", "full_attention"],
            )
        ),
        LAYERS,
        ALL,
    ),
    "ministral3": TinyModel(_ministral3, LAYERS, ALL),
    "qwen3_moe": TinyModel(
        lambda: _decoder(
            transformers.Qwen3MoeConfig(
                **GROUPED,
                head_dim=16,
                num_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=32,
            )
        ),
        LAYERS,
        ("q_proj", "v_proj", "o_proj"),
    ),
    "qwen3_next": TinyModel(
        lambda: _decoder(
            transformers.Qwen3NextConfig(
                **GROUPED | _MIXER,
                num_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=32,
                shared_expert_intermediate_size=32,
            )
        ),
        LAYERS,
        ("q_proj", "v_proj", "o_proj", "out_proj"),
    ),
    "qwen3_5_text": TinyModel(
        lambda: _decoder(transformers.Qwen3_5TextConfig(**GROUPED | _MIXER)),
        LAYERS,
        ("q_proj", "v_proj", "o_proj", "out_proj"),
    ),
    "granitemoehybrid": TinyModel(
        lambda: _decoder(
            transformers.GraniteMoeHybridConfig(
                **GROUPED,
                layer_types=["mamba", "attention"],
                num_local_experts=0,
                shared_intermediate_size=48,
                mamba_n_heads=4,
                mamba_d_head=32,
                mamba_n_groups=1,
                mamba_d_state=8,
                mamba_chunk_size=8,
                mamba_expand=2,
                position_embedding_type="nope",
            )
        ),
        LAYERS,
        ("q_proj", "v_proj", "o_proj", "in_proj", "out_proj"),
    ),
    "gemma": TinyModel(
        lambda: _decoder(transformers.GemmaConfig(**GROUPED, head_dim=16)), LAYERS, ALL
    ),
    "gemma4_text": TinyModel(_gemma4, LAYERS, ALL),
    "phi4-mini": TinyModel(_phi4_mini, LAYERS, ("qkv_proj", "o_proj", "gate_up_proj")),
    "olmo3": TinyModel(
        lambda: _decoder(
            transformers.Olmo3Config(
                **GROUPED,
                sliding_window=WINDOW,
                layer_types=["sliding_attention", "full_attention"],
            )
        ),
        LAYERS,
        ALL,
    ),
    "lfm2": TinyModel(
        lambda: _decoder(
            transformers.Lfm2Config(**GROUPED, layer_types=["conv", "full_attention"])
        ),
        LAYERS,
        ("q_proj", "v_proj", "out_proj", "in_proj", "w1"),
    ),
    "gpt_oss": TinyModel(
        lambda: _decoder(
            transformers.GptOssConfig(
                **GROUPED,
                head_dim=16,
                num_local_experts=4,
                num_experts_per_tok=2,
                sliding_window=WINDOW,
                layer_types=["sliding_attention", "full_attention"],
                rope_parameters={"rope_type": "default", "rope_theta": 100.0},
            )
        ),
        LAYERS,
        ("q_proj", "v_proj", "o_proj"),
    ),
    "deberta-v2": TinyModel(
        lambda: transformers.DebertaV2ForSequenceClassification(
            transformers.DebertaV2Config(
                **SIZES,
                relative_attention=True,
                pos_att_type=["p2c", "c2p"],
                position_buckets=8,
                norm_rel_ebd="layer_norm",
                share_att_key=True,
                position_biased_input=False,
                type_vocab_size=0,
                num_labels=3,
            )
        ),
        "deberta.encoder.layer",
        ("value_proj", "dense"),
        encoder=True,
        classes=3,
    ),
    "roberta-classes": TinyModel(
        lambda: transformers.RobertaForSequenceClassification(
            transformers.RobertaConfig(
                **SIZES | {"type_vocab_size": 1, "pad_token_id": 1}, num_labels=3
            )
        ),
        "roberta.encoder.layer",
        ("query", "value", "dense"),
        encoder=True,
        classes=3,
    ),
    "bert-classes": TinyModel(
        lambda: transformers.BertForSequenceClassification(
            transformers.BertConfig(**SIZES, num_labels=3)
        ),
        "bert.encoder.layer",
        ("query", "value", "dense"),
        encoder=True,
        classes=3,
    ),
    "modernbert-classes": TinyModel(
        lambda: transformers.ModernBertForSequenceClassification(
            transformers.ModernBertConfig(
                **SIZES,
                local_attention=8,
                global_attn_every_n_layers=2,
                cls_token_id=1,
                sep_token_id=2,
                num_labels=3,
            )
        ),
        LAYERS,
        ("Wqkv", "Wo"),
        encoder=True,
        classes=3,
    ),
    "mixtral": TinyModel(
        lambda: _decoder(
            transformers.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2)
        ),
        LAYERS,
        ("q_proj", "v_proj", "o_proj"),
    ),
}
