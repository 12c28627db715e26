"""Tiny models with random weights, one a family."""

from __future__ import annotations

import transformers
from transformers import PreTrainedModel

from tests.export.tiny_model import (
    ALL,
    GROUPED,
    HIDDEN,
    LAYERS,
    LONGEST,
    MAX_SEQ,
    SIZES,
    VOCAB,
    TinyModel,
    randomize,
    save,
)
from tests.export.tiny_recent import RECENT

__all__ = ["HIDDEN", "LONGEST", "MAX_SEQ", "TINY", "VOCAB", "TinyModel", "randomize", "save"]


def _llama(**changes: object) -> PreTrainedModel:
    config = transformers.LlamaConfig(**GROUPED | changes)
    return transformers.LlamaForCausalLM(config)


def _gemma3() -> PreTrainedModel:
    config = transformers.Gemma3TextConfig(
        **GROUPED,
        head_dim=16,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        final_logit_softcapping=5.0,
    )
    return transformers.Gemma3ForCausalLM(config)


TINY: dict[str, TinyModel] = {
    "llama": TinyModel(lambda: _llama(tie_word_embeddings=False), LAYERS, ALL),
    "llama-tied": TinyModel(lambda: _llama(tie_word_embeddings=True), LAYERS, ALL),
    "llama-bias": TinyModel(lambda: _llama(attention_bias=True, mlp_bias=True), LAYERS, ALL),
    # Heads that ONNX Runtime's attention cannot turn itself.
    "llama-narrow": TinyModel(lambda: _llama(head_dim=8), LAYERS, ALL),
    "llama-odd": TinyModel(lambda: _llama(head_dim=20), LAYERS, ALL),
    "mistral": TinyModel(
        lambda: transformers.MistralForCausalLM(
            transformers.MistralConfig(**GROUPED, sliding_window=8)
        ),
        LAYERS,
        ALL,
    ),
    "qwen2": TinyModel(
        lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**GROUPED)), LAYERS, ALL
    ),
    "qwen3": TinyModel(
        lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**GROUPED, head_dim=16)),
        LAYERS,
        ALL,
    ),
    "gemma3_text": TinyModel(_gemma3, LAYERS, ALL),
    "phi3": TinyModel(
        lambda: transformers.Phi3ForCausalLM(
            transformers.Phi3Config(**GROUPED, sliding_window=None)
        ),
        LAYERS,
        ("qkv_proj", "o_proj", "gate_up_proj"),
    ),
    "gpt2": TinyModel(
        lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=VOCAB,
                n_embd=HIDDEN,
                n_layer=2,
                n_head=4,
                n_positions=MAX_SEQ,
                bos_token_id=1,
                eos_token_id=2,
            )
        ),
        "transformer.h",
        ("c_attn", "c_proj", "c_fc"),
    ),
    "gpt_neox": TinyModel(
        lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SIZES)),
        "gpt_neox.layers",
        ("query_key_value", "dense"),
    ),
    "olmo2": TinyModel(
        lambda: transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**GROUPED)), LAYERS, ALL
    ),
    "opt": TinyModel(
        lambda: transformers.OPTForCausalLM(
            transformers.OPTConfig(
                **{k: v for k, v in SIZES.items() if k != "intermediate_size"},
                ffn_dim=96,
                word_embed_proj_dim=HIDDEN,
            )
        ),
        "model.decoder.layers",
        ("q_proj", "v_proj", "fc1"),
    ),
    "roberta": TinyModel(
        lambda: transformers.RobertaForMaskedLM(
            transformers.RobertaConfig(**SIZES | {"type_vocab_size": 1, "pad_token_id": 1})
        ),
        "roberta.encoder.layer",
        ("query", "value", "dense"),
        encoder=True,
    ),
    "bert": TinyModel(
        lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)),
        "bert.encoder.layer",
        ("query", "value", "dense"),
        encoder=True,
    ),
    "modernbert": TinyModel(
        lambda: transformers.ModernBertForMaskedLM(
            transformers.ModernBertConfig(
                **SIZES,
                local_attention=8,
                global_attn_every_n_layers=2,
                cls_token_id=1,
                sep_token_id=2,
            )
        ),
        "model.layers",
        ("Wqkv", "Wo"),
        encoder=True,
    ),
    "gemma2": TinyModel(
        lambda: transformers.Gemma2ForCausalLM(
            transformers.Gemma2Config(**GROUPED, head_dim=16, sliding_window=8)
        ),
        LAYERS,
        ALL,
    ),
    "phi": TinyModel(
        lambda: transformers.PhiForCausalLM(
            transformers.PhiConfig(**GROUPED | {"num_attention_heads": 2, "num_key_value_heads": 1})
        ),
        LAYERS,
        ("q_proj", "v_proj", "fc1"),
    ),
    "cohere": TinyModel(
        lambda: transformers.CohereForCausalLM(transformers.CohereConfig(**GROUPED)), LAYERS, ALL
    ),
    "bloom": TinyModel(
        lambda: transformers.BloomForCausalLM(
            transformers.BloomConfig(
                vocab_size=VOCAB,
                hidden_size=HIDDEN,
                n_layer=2,
                n_head=4,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
            )
        ),
        "transformer.h",
        ("query_key_value", "dense", "dense_h_to_4h"),
    ),
    "granite": TinyModel(
        lambda: transformers.GraniteForCausalLM(
            transformers.GraniteConfig(**GROUPED, logits_scaling=3.0, residual_multiplier=0.7)
        ),
        LAYERS,
        ALL,
    ),
    "smollm3": TinyModel(
        lambda: transformers.SmolLM3ForCausalLM(
            transformers.SmolLM3Config(**GROUPED, no_rope_layer_interval=2)
        ),
        LAYERS,
        ALL,
    ),
    "starcoder2": TinyModel(
        lambda: transformers.Starcoder2ForCausalLM(
            transformers.Starcoder2Config(**GROUPED, sliding_window=8)
        ),
        LAYERS,
        ("q_proj", "v_proj", "c_fc"),
    ),
    "opt-projected": TinyModel(
        lambda: transformers.OPTForCausalLM(
            transformers.OPTConfig(
                **{k: v for k, v in SIZES.items() if k != "intermediate_size"},
                ffn_dim=96,
                word_embed_proj_dim=32,
                do_layer_norm_before=False,
            )
        ),
        "model.decoder.layers",
        ("q_proj", "v_proj", "fc1"),
    ),
    "xlm-roberta": TinyModel(
        lambda: transformers.XLMRobertaForMaskedLM(
            transformers.XLMRobertaConfig(**SIZES | {"type_vocab_size": 1, "pad_token_id": 1})
        ),
        "roberta.encoder.layer",
        ("query", "value", "dense"),
        encoder=True,
    ),
    "distilbert": TinyModel(
        lambda: transformers.DistilBertForMaskedLM(
            transformers.DistilBertConfig(
                vocab_size=VOCAB,
                dim=HIDDEN,
                n_layers=2,
                n_heads=4,
                hidden_dim=96,
                max_position_embeddings=MAX_SEQ,
                pad_token_id=0,
            )
        ),
        "distilbert.transformer.layer",
        ("q_lin", "v_lin", "lin1"),
        encoder=True,
    ),
    "electra": TinyModel(
        lambda: transformers.ElectraForMaskedLM(
            transformers.ElectraConfig(**SIZES | {"embedding_size": 32})
        ),
        "electra.encoder.layer",
        ("query", "value", "dense"),
        encoder=True,
    ),
}
TINY |= RECENT
