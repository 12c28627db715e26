"""Tiny checkpoints to read: folders and GGUF files with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

from tests.export.gguf_model import VOCAB, write_gguf

SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def randomize(model: torch.nn.Module) -> torch.nn.Module:
    """Norms and biases away from 1 and 0, so that mixing them up shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def tiny_llama(**changes: object) -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(**SIZES | changes)
    return randomize(transformers.LlamaForCausalLM(config))


def assert_same_tensors(source, model: torch.nn.Module) -> None:
    for name, expected in model.state_dict().items():
        if not expected.is_floating_point():
            continue
        found = source.read(name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected.float().numpy(), err_msg=name)
        assert source.shape(name) == tuple(expected.shape)
        rows = len(found)
        for start, stop in ((0, rows - 1), (rows // 3, min(rows, rows // 3 + 5)), (1, 1)):
            part = source.read_rows(name, start, stop)
            np.testing.assert_array_equal(part, found[start:stop], err_msg=name)


MODELS = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    ),
    "roberta": lambda: transformers.RobertaForMaskedLM(
        transformers.RobertaConfig(**SIZES | {"type_vocab_size": 1})
    ),
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SIZES)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES)),
    "gemma3": lambda: transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(**SIZES, head_dim=8)
    ),
}


GGUF_MODELS = {
    "llama": (transformers.LlamaConfig, {}),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 128}),  # transformers reads no other from GGUF
    "gemma2": (transformers.Gemma2Config, {"head_dim": 8}),
    "gemma3": (transformers.Gemma3TextConfig, {"head_dim": 8}),
    "phi3": (transformers.Phi3Config, {}),
}


def tiny_gguf(path: Path, arch: str, tied: bool = True, quantize: bool = False, **extras):
    config_class, extra = GGUF_MODELS[arch]
    config = config_class(**SIZES | extra, tie_word_embeddings=tied)
    model = randomize(AutoModelForCausalLM.from_config(config))
    write_gguf(path, model, arch, quantize, **extras)
    return model
